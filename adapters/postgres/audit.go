package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/domain"
)

// Audit reads the history through the views of the schema audit: whoever may
// read those may use it. All lists are newest first, by the chat events' place
// in the outbox, and a page costs what is on it.
type Audit struct{ db *sql.DB }

// NewAudit gives the history of a database.
func NewAudit(db *sql.DB) *Audit { return &Audit{db} }

// EventRecord is a row of audit.events. Zero times, and numbers and texts that
// cannot be empty or zero, are NULL there.
type EventRecord struct {
	EventID       uuid.UUID
	Seq           int64
	AccountID     domain.AccountID
	Event         string
	OrderingKey   string
	OccurredAt    time.Time
	InsertedAt    time.Time
	RoutedAt      time.Time
	Routing       domain.RoutingKind
	Reason        string
	ConfigVersion int64
	BodyBytes     int
	DeliveryCount int
	Metadata      json.RawMessage
}

// DeliveryRecord is a row of audit.deliveries.
type DeliveryRecord struct {
	DeliveryID     domain.DeliveryID
	NotificationID domain.NotificationID
	EventID        uuid.UUID
	EventSeq       int64
	AccountID      domain.AccountID
	Event          string
	OrderingKey    string
	WebhookID      domain.WebhookID
	WebhookVersion int64
	URL            string
	Status         domain.DeliveryStatus
	Reason         string
	AttemptCount   int
	ScheduledAt    time.Time
	FirstAttemptAt time.Time
	LastAttemptAt  time.Time
	NextAttemptAt  time.Time
	CompletedAt    time.Time
	LastOutcome    domain.OutcomeKind
	LastStatusCode int
	ReplayID       domain.ReplayID
}

// AttemptRecord is a row of audit.attempts.
type AttemptRecord struct {
	DeliveryID      domain.DeliveryID
	NotificationID  domain.NotificationID
	Attempt         int
	EventID         uuid.UUID
	AccountID       domain.AccountID
	WebhookID       domain.WebhookID
	WebhookVersion  int64
	URL             string
	StartedAt       time.Time
	FinishedAt      time.Time
	Outcome         domain.OutcomeKind
	PreviousOutcome domain.OutcomeKind
	StatusCode      int
	ErrorClass      domain.ErrorClass
	ErrorDetail     string
	// DurationMS is NULL where the attempt has no outcome with a duration.
	DurationMS      sql.NullFloat64
	RemoteIP        string
	ResponseExcerpt sql.NullString
	RelayID         int64
}

// AuditFilter selects records; its zero values select all.
type AuditFilter struct {
	AccountID domain.AccountID
	WebhookID domain.WebhookID
	EventID   uuid.UUID
	// Status is a routing of events, a status of deliveries or an outcome of
	// attempts.
	Status string
	// Limit is how many records are wanted, at least 1.
	Limit int
}

// Page is a part of a list.
type Page[T any] struct {
	Records []T
	// Next is where the following page begins, nil behind the last one.
	Next *AuditCursor
	// Searched is how many events or deliveries were looked at where that is
	// why the page is short: there may be more behind Next.
	Searched int
}

// AuditCursor is a place in a list: what follows is older. Events use Seq
// alone, deliveries all but Attempt.
type AuditCursor struct {
	// DeliveryID names the place for people; Place finds it by that.
	DeliveryID domain.DeliveryID
	Seq        int64
	WebhookID  domain.WebhookID
	ReplayID   domain.ReplayID
	// Attempt is the last one of this delivery that was listed, 0 for all.
	Attempt int
}

const (
	// maxSearched bounds how many events or deliveries one page looks at for a
	// status that no index leads to: about a second's reading.
	maxSearched = 20_000
	// searchChunk is how many are read at a time: few enough for the planner
	// to walk an index instead of sorting the history.
	searchChunk = 1000
)

// chunk is a stretch of a list, read whole.
type chunk[T any] struct {
	records []T
	// looked counts the events or deliveries in it; end is its last one, nil
	// where the list ends.
	looked int
	end    *AuditCursor
}

// search fills a page with the records that are to be kept, from chunk after
// chunk.
func search[T any](limit int, before *AuditCursor, read func(before *AuditCursor, n int) (chunk[T], error), keep func(*T) bool, at func(*T) AuditCursor) (Page[T], error) {
	var page Page[T]
	searched := 0
	for n := limit + 1; ; n = searchChunk {
		found, err := read(before, n)
		if err != nil {
			return Page[T]{}, err
		}
		for i := range found.records {
			switch {
			case !keep(&found.records[i]):
			case len(page.Records) == limit:
				next := at(&page.Records[limit-1])
				page.Next = &next
				return page, nil
			default:
				page.Records = append(page.Records, found.records[i])
			}
		}
		searched += found.looked
		if found.end == nil {
			return page, nil
		}
		if before = found.end; searched >= maxSearched {
			page.Next, page.Searched = before, searched
			return page, nil
		}
	}
}

// endOf gives the last record's place where a query filled its limit.
func endOf[T any](records []T, n int, at func(*T) AuditCursor) *AuditCursor {
	if len(records) < n {
		return nil
	}
	end := at(&records[len(records)-1])
	return &end
}

// conditions builds a WHERE clause. Values are always parameters.
type conditions struct {
	text []string
	args []any
}

// add appends a condition whose ? are the args.
func (c *conditions) add(text string, args ...any) {
	for _, arg := range args {
		c.args = append(c.args, arg)
		text = strings.Replace(text, "?", "$"+strconv.Itoa(len(c.args)), 1)
	}
	c.text = append(c.text, text)
}

func (c *conditions) where() string {
	if len(c.text) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.text, " AND ")
}

func (c *conditions) common(f AuditFilter) {
	if f.AccountID != 0 {
		c.add("account_id = ?", int64(f.AccountID))
	}
	if f.EventID != uuid.Nil {
		c.add("event_id = ?::uuid", f.EventID.String())
	}
}

const eventColumns = `coalesce(event_id, '00000000-0000-0000-0000-000000000000')::text, seq, account_id, coalesce(event, ''), coalesce(ordering_key, ''),
       occurred_at::text, inserted_at, routed_at, routing, coalesce(reason, ''), coalesce(config_version, 0), coalesce(body_bytes, 0), delivery_count, metadata::text`

// Events reads chat events. A WebhookID selects those with a delivery to it.
func (a *Audit) Events(ctx context.Context, f AuditFilter, before *AuditCursor) (Page[EventRecord], error) {
	at := func(e *EventRecord) AuditCursor { return AuditCursor{Seq: e.Seq} }
	// Common ones are picked out here: the planner takes any for rare.
	common := f.Status == string(domain.RoutingRouted) || f.Status == string(domain.RoutingNoSubscriber)
	keep := func(e *EventRecord) bool { return !common || string(e.Routing) == f.Status }
	read := func(before *AuditCursor, n int) (chunk[EventRecord], error) {
		var c conditions
		c.common(f)
		if before != nil {
			c.add("seq < ?", before.Seq)
		}
		switch {
		case f.Status == string(domain.RoutingWaiting):
			c.add("routed_at IS NULL") // says the same, and spares the log
			c.add("routing = 'waiting'")
		case f.Status != "" && !common:
			c.add("routing = ?", f.Status)
		}
		var found chunk[EventRecord]
		if f.WebhookID != 0 {
			seqs, err := a.eventsOf(ctx, f, before, n)
			if err != nil {
				return found, err
			}
			c.add("seq = ANY (?::bigint[])", pq.Array(seqs))
			found.looked = len(seqs)
			found.end = endOf(seqs, n, func(seq *int64) AuditCursor { return AuditCursor{Seq: *seq} })
		}
		var err error
		found.records, err = list(ctx, a.db, scanEventRecord,
			`SELECT `+eventColumns+` FROM audit.events`+c.where()+` ORDER BY seq DESC LIMIT `+strconv.Itoa(n), c.args...)
		if f.WebhookID == 0 {
			found.looked, found.end = len(found.records), endOf(found.records, n, at)
		}
		return found, err
	}
	return search(f.Limit, before, read, keep, at)
}

// eventsOf lists the places of the newest events with a delivery to a webhook.
// They go into the next query as a list: the planner follows a list into the
// view, a subquery it does not.
func (a *Audit) eventsOf(ctx context.Context, f AuditFilter, before *AuditCursor, n int) ([]int64, error) {
	var c conditions
	c.common(f)
	c.add("webhook_id = ?", int64(f.WebhookID))
	if before != nil {
		c.add("event_seq < ?", before.Seq)
	}
	scan := func(row scanner) (seq int64, err error) {
		err = row.Scan(&seq)
		return seq, err
	}
	return list(ctx, a.db, scan,
		`SELECT DISTINCT event_seq FROM audit.deliveries`+c.where()+` ORDER BY event_seq DESC LIMIT `+strconv.Itoa(n), c.args...)
}

func scanEventRecord(row scanner) (EventRecord, error) {
	var e EventRecord
	var occurred, metadata sql.NullString
	var inserted, routed sql.NullTime
	err := row.Scan(&e.EventID, &e.Seq, &e.AccountID, &e.Event, &e.OrderingKey, &occurred, &inserted, &routed,
		&e.Routing, &e.Reason, &e.ConfigVersion, &e.BodyBytes, &e.DeliveryCount, &metadata)
	e.InsertedAt, e.RoutedAt = inserted.Time.UTC(), routed.Time.UTC()
	e.OccurredAt = producersTime(occurred.String)
	if metadata.Valid {
		e.Metadata = json.RawMessage(metadata.String)
	}
	return e, err
}

// producersTime reads a timestamptz that a producer gave: it may be infinite,
// before Christ or of the year 20000, and is then left out.
func producersTime(text string) time.Time {
	for _, layout := range []string{"2006-01-02 15:04:05.999999-07", "2006-01-02 15:04:05.999999-07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC()
		}
	}
	return time.Time{}
}

const deliveryColumns = `delivery_id::text, notification_id::text, event_id::text, event_seq, account_id, coalesce(event, ''), coalesce(ordering_key, ''),
       webhook_id, coalesce(webhook_version, 0), coalesce(url, ''), status, coalesce(reason, ''), attempt_count, scheduled_at, first_attempt_at,
       last_attempt_at, next_attempt_at, completed_at, coalesce(last_outcome, ''), coalesce(last_status_code, 0), replay_id`

const newestDeliveries = ` ORDER BY event_seq DESC, webhook_id DESC, replay_id DESC LIMIT `

// Deliveries reads deliveries.
func (a *Audit) Deliveries(ctx context.Context, f AuditFilter, before *AuditCursor) (Page[DeliveryRecord], error) {
	at := func(d *DeliveryRecord) AuditCursor {
		return AuditCursor{DeliveryID: d.DeliveryID, Seq: d.EventSeq, WebhookID: d.WebhookID, ReplayID: d.ReplayID}
	}
	keep := func(d *DeliveryRecord) bool { return f.Status == "" || string(d.Status) == f.Status }
	read := func(before *AuditCursor, n int) (found chunk[DeliveryRecord], err error) {
		c := deliveriesFrom(f, before)
		if entry, rare := rareStatus[f.Status]; rare {
			c.ofEntry(entry, f)
		}
		found.records, err = list(ctx, a.db, scanDeliveryRecord,
			`SELECT `+deliveryColumns+` FROM audit.deliveries`+c.where()+newestDeliveries+strconv.Itoa(n), c.args...)
		found.looked, found.end = len(found.records), endOf(found.records, n, at)
		return found, err
	}
	return search(f.Limit, before, read, keep, at)
}

// rareStatus gives the log entry that a delivery with the status has, and few
// others: it finds them without reading what went well.
var rareStatus = map[string]string{
	string(domain.DeliveryHeld):      domain.TypeHeld,
	string(domain.DeliveryDead):      domain.TypeDead,
	string(domain.DeliveryCancelled): domain.TypeCancelled,
	string(domain.DeliveryExpired):   domain.TypeExpired,
}

// ofEntry selects deliveries with an entry of a type. The type stands in the
// text: with a parameter a partial index would not be used in a generic plan.
func (c *conditions) ofEntry(entry string, f AuditFilter) {
	text := `delivery_id IN (SELECT t.delivery_id FROM audit.timeline t WHERE t.type = '` + entry + `'`
	if f.AccountID != 0 {
		c.add(text+` AND t.account_id = ?)`, int64(f.AccountID))
	} else {
		c.add(text + `)`)
	}
}

// deliveriesFrom gives the conditions for deliveries behind a cursor, or from
// it on where some attempts of it are still to come.
func deliveriesFrom(f AuditFilter, before *AuditCursor) conditions {
	var c conditions
	c.common(f)
	if f.WebhookID != 0 {
		c.add("webhook_id = ?", int64(f.WebhookID))
	}
	if before != nil {
		operator := "<"
		if before.Attempt > 0 {
			operator = "<="
		}
		c.add("event_seq <= ?", before.Seq) // follows from the next one, but only this prunes partitions
		c.add("(event_seq, webhook_id, replay_id) "+operator+" (?, ?, ?)", before.Seq, int64(before.WebhookID), int64(before.ReplayID))
	}
	return c
}

func scanDeliveryRecord(row scanner) (DeliveryRecord, error) {
	var d DeliveryRecord
	var first, last, next, completed sql.NullTime
	err := row.Scan(&d.DeliveryID, &d.NotificationID, &d.EventID, &d.EventSeq, &d.AccountID, &d.Event, &d.OrderingKey,
		&d.WebhookID, &d.WebhookVersion, &d.URL, &d.Status, &d.Reason, &d.AttemptCount, &d.ScheduledAt, &first,
		&last, &next, &completed, &d.LastOutcome, &d.LastStatusCode, &d.ReplayID)
	d.ScheduledAt = d.ScheduledAt.UTC()
	d.FirstAttemptAt, d.LastAttemptAt, d.NextAttemptAt, d.CompletedAt = first.Time.UTC(), last.Time.UTC(), next.Time.UTC(), completed.Time.UTC()
	return d, err
}

const attemptColumns = `a.delivery_id::text, a.notification_id::text, a.attempt, a.event_id::text, a.account_id, a.webhook_id, coalesce(a.webhook_version, 0),
       coalesce(a.url, ''), a.started_at, a.finished_at, a.outcome, coalesce(a.previous_outcome, ''), coalesce(a.status_code, 0),
       coalesce(a.error_class, ''), coalesce(a.error_detail, ''), a.duration_ms::float8, coalesce(host(a.remote_ip), ''), a.response_excerpt, a.relay_id`

// nullableAttemptColumns are attemptColumns on the right of a LEFT JOIN.
const nullableAttemptColumns = `d.delivery_id::text, d.notification_id::text, coalesce(a.attempt, 0), d.event_id::text, d.account_id, d.webhook_id, coalesce(a.webhook_version, 0),
       coalesce(a.url, ''), coalesce(a.started_at, d.scheduled_at), a.finished_at, coalesce(a.outcome, ''), coalesce(a.previous_outcome, ''), coalesce(a.status_code, 0),
       coalesce(a.error_class, ''), coalesce(a.error_detail, ''), a.duration_ms::float8, coalesce(host(a.remote_ip), ''), a.response_excerpt, coalesce(a.relay_id, 0)`

// rareOutcome is rareStatus for attempts.
var rareOutcome = map[string]string{
	string(domain.OutcomeFailed):  domain.TypeAttemptFailed,
	string(domain.OutcomeUnknown): domain.TypeAttemptUnknown,
}

// deliveryAttempt is an attempt with its place. A delivery without attempts
// gives one with Attempt 0.
type deliveryAttempt struct {
	AttemptRecord
	at AuditCursor
}

// attemptsQuery reads whole deliveries with their attempts. LATERAL with OFFSET:
// a delivery's attempts are looked up by its id, never joined as a whole.
const attemptsQuery = `
SELECT d.event_seq, d.webhook_id, d.replay_id, d.delivery_id::text, a.attempt IS NOT NULL, %s
  FROM (SELECT * FROM audit.deliveries%s%s%d) d
  LEFT JOIN LATERAL (SELECT * FROM audit.attempts x WHERE x.delivery_id = d.delivery_id OFFSET 0) a ON true
 ORDER BY d.event_seq DESC, d.webhook_id DESC, d.replay_id DESC, a.attempt DESC`

// Attempts reads attempts: by delivery, and within one from the last to the
// first.
func (a *Audit) Attempts(ctx context.Context, f AuditFilter, before *AuditCursor) (Page[AttemptRecord], error) {
	read := func(before *AuditCursor, n int) (found chunk[deliveryAttempt], err error) {
		c := deliveriesFrom(f, before)
		if entry, rare := rareOutcome[f.Status]; rare {
			c.ofEntry(entry, f)
		}
		found.records, err = list(ctx, a.db, scanDeliveryAttempt,
			fmt.Sprintf(attemptsQuery, nullableAttemptColumns, c.where(), newestDeliveries, n), c.args...)
		last := AuditCursor{}
		for i := range found.records {
			r := &found.records[i]
			if of := r.at; of.DeliveryID != last.DeliveryID {
				last = of
				last.Attempt = 0
				found.looked++
			}
		}
		if found.looked == n {
			found.end = &last
		}
		return found, err
	}
	keep := func(r *deliveryAttempt) bool {
		listed := before != nil && before.Attempt > 0 && r.DeliveryID == before.DeliveryID && r.Attempt >= before.Attempt
		return r.Attempt > 0 && !listed && (f.Status == "" || string(r.Outcome) == f.Status)
	}
	found, err := search(f.Limit, before, read, keep, func(r *deliveryAttempt) AuditCursor { return r.at })
	page := Page[AttemptRecord]{Next: found.Next, Searched: found.Searched}
	for i := range found.Records {
		page.Records = append(page.Records, found.Records[i].AttemptRecord)
	}
	return page, err
}

func scanDeliveryAttempt(row scanner) (r deliveryAttempt, err error) {
	var found bool
	r.AttemptRecord, err = scanAttemptRecord(prefixed{row, []any{&r.at.Seq, &r.at.WebhookID, &r.at.ReplayID, &r.at.DeliveryID, &found}})
	if found {
		r.at.Attempt = r.Attempt
	} else {
		r.AttemptRecord = AttemptRecord{}
	}
	return r, err
}

func scanAttemptRecord(row scanner) (AttemptRecord, error) {
	var r AttemptRecord
	var finished sql.NullTime
	err := row.Scan(&r.DeliveryID, &r.NotificationID, &r.Attempt, &r.EventID, &r.AccountID, &r.WebhookID, &r.WebhookVersion,
		&r.URL, &r.StartedAt, &finished, &r.Outcome, &r.PreviousOutcome, &r.StatusCode,
		&r.ErrorClass, &r.ErrorDetail, &r.DurationMS, &r.RemoteIP, &r.ResponseExcerpt, &r.RelayID)
	r.StartedAt, r.FinishedAt = r.StartedAt.UTC(), finished.Time.UTC()
	return r, err
}

// ErrNoDelivery says that there is no such delivery, or none that the session
// may see.
var ErrNoDelivery = errors.New("no such delivery")

// Place finds where a delivery stands in the lists.
func (a *Audit) Place(ctx context.Context, delivery domain.DeliveryID) (AuditCursor, error) {
	at := AuditCursor{DeliveryID: delivery}
	err := a.db.QueryRowContext(ctx, `SELECT event_seq, webhook_id, replay_id FROM audit.deliveries WHERE delivery_id = $1::uuid`,
		delivery.String()).Scan(&at.Seq, &at.WebhookID, &at.ReplayID)
	if errors.Is(err, sql.ErrNoRows) {
		return AuditCursor{}, ErrNoDelivery
	}
	return at, err
}

// Trace is all that is on record about one chat event.
type Trace struct {
	Event EventRecord
	// Skips are the webhooks that were passed over.
	Skips      []domain.Skip
	Deliveries []DeliveryTrace
}

// DeliveryTrace is one delivery of a chat event.
type DeliveryTrace struct {
	DeliveryRecord
	// WebhookName is what people call the webhook, at the version used.
	WebhookName string
	Attempts    []AttemptRecord
	Entries     []TimelineEntry
}

// TimelineEntry is one entry of a stream.
type TimelineEntry struct {
	Version int
	At      time.Time
	Type    string
	Data    json.RawMessage
}

// Decode gives the event of a delivery's entry.
func (e TimelineEntry) Decode() (domain.DeliveryEvent, error) {
	return domain.DecodeDelivery(domain.Entry{Type: e.Type, At: e.At, Data: e.Data})
}

// Trace reads the lives of the chat events with an id, oldest first: several
// where accounts use the same ids, or where one was inserted again. account 0
// means any. Nothing is found of an id that is not there.
func (a *Audit) Trace(ctx context.Context, account domain.AccountID, event uuid.UUID) ([]Trace, error) {
	// One snapshot for all: attempts go on meanwhile.
	tx, err := a.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	var c conditions
	c.common(AuditFilter{AccountID: account, EventID: event})
	events, err := list(ctx, tx, scanEventRecord, `SELECT `+eventColumns+` FROM audit.events`+c.where()+` ORDER BY seq`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	deliveries, err := list(ctx, tx, scanDeliveryRecord, `SELECT `+deliveryColumns+` FROM audit.deliveries`+c.where()+` ORDER BY event_seq, replay_id, webhook_id`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	attempts, err := list(ctx, tx, scanAttemptRecord, `SELECT `+attemptColumns+` FROM audit.attempts a`+c.where()+` ORDER BY a.delivery_id, a.attempt`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	type entry struct {
		TimelineEntry
		account  domain.AccountID
		delivery uuid.NullUUID
	}
	entries, err := list(ctx, tx, func(row scanner) (e entry, err error) {
		var data string
		err = row.Scan(&e.account, &e.delivery, &e.Version, &e.At, &e.Type, &data)
		e.At, e.Data = e.At.UTC(), json.RawMessage(data)
		return e, err
	}, `SELECT account_id, delivery_id::text, version, at, type, data::text FROM audit.timeline`+c.where()+` ORDER BY seq`, c.args...)
	if err != nil {
		return nil, fmt.Errorf("read the timeline: %w", err)
	}
	names, err := webhookNames(ctx, tx, deliveries)
	if err != nil {
		return nil, fmt.Errorf("read webhooks' names: %w", err)
	}

	traces := make([]Trace, 0, len(events))
	for _, e := range events {
		t := Trace{Event: e}
		for _, d := range deliveries {
			if d.EventSeq != e.Seq {
				continue
			}
			delivery := DeliveryTrace{DeliveryRecord: d, WebhookName: names[domain.Target{WebhookID: d.WebhookID, Version: d.WebhookVersion}]}
			for i := range attempts {
				if attempts[i].DeliveryID == d.DeliveryID {
					delivery.Attempts = append(delivery.Attempts, attempts[i])
				}
			}
			for i := range entries {
				if entries[i].delivery.Valid && entries[i].delivery.UUID == d.DeliveryID {
					delivery.Entries = append(delivery.Entries, entries[i].TimelineEntry)
				}
			}
			t.Deliveries = append(t.Deliveries, delivery)
		}
		for i := range entries {
			// Of the event's own routing, for an id may have come twice.
			s := &entries[i]
			own := s.Type == domain.TypeRouted && s.account == e.AccountID && s.At.Equal(e.RoutedAt)
			if own && e.Routing != domain.RoutingDuplicate {
				var routed struct{ Skips []domain.Skip }
				if err := json.Unmarshal(s.Data, &routed); err != nil {
					return nil, fmt.Errorf("routing of event %s: %w", e.EventID, err)
				}
				t.Skips = append(t.Skips, routed.Skips...)
			}
		}
		traces = append(traces, t)
	}
	return traces, nil
}

// webhookNames reads the names that webhooks had at the versions that were used.
func webhookNames(ctx context.Context, db querier, deliveries []DeliveryRecord) (map[domain.Target]string, error) {
	ids, versions := make([]domain.WebhookID, len(deliveries)), make([]int64, len(deliveries))
	for i := range deliveries {
		ids[i], versions[i] = deliveries[i].WebhookID, deliveries[i].WebhookVersion
	}
	names := map[domain.Target]string{}
	_, err := list(ctx, db, func(row scanner) (struct{}, error) {
		var used domain.Target
		var name string
		err := row.Scan(&used.WebhookID, &used.Version, &name)
		names[used] = name
		return struct{}{}, err
	}, `SELECT webhook_id, webhook_version, coalesce(after ->> 'name', '') FROM audit.webhook_changes
 WHERE webhook_id = ANY ($1::bigint[]) AND webhook_version = ANY ($2::bigint[])`, pq.Array(ids), pq.Array(versions))
	return names, err
}

// list reads all rows of a query.
func list[T any](ctx context.Context, db querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var found []T
	for rows.Next() {
		record, err := scan(rows)
		if err != nil {
			return nil, err
		}
		found = append(found, record)
	}
	return found, rows.Err()
}

// querier is *sql.DB or *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}
