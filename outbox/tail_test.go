package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// deadline is how long a test waits for what should come within milliseconds.
const deadline = 60 * time.Second

// seen is what a tail told of itself.
type seen struct {
	mu      sync.Mutex
	batches []*outbox.Batch // confirmed
	heads   []int64         // reloaded
	errs    []error
	polls   int
}

// newTail makes a tail that tells the seen what it does.
func newTail(t *testing.T, db *sql.DB, change func(*outbox.TailConfig)) (*outbox.Tail, *seen) {
	t.Helper()
	s := &seen{}
	config := outbox.TailConfig{
		Chain:   postgres.NewChain(db),
		RelayID: rand.Int64N(1 << 40), //nolint:gosec // a name
		Confirmed: func(b *outbox.Batch) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.batches = append(s.batches, b)
		},
		Reloaded: func(no int64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.heads = append(s.heads, no)
		},
		OnError: func(err error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.errs = append(s.errs, err)
		},
		// Each poll asks for the time once, and for each batch once more.
		Now: func() time.Time {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.polls++
			return time.Now()
		},
		PollInterval: 20 * time.Millisecond,
	}
	if change != nil {
		change(&config)
	}
	tail, err := outbox.NewTail(db, config)
	if err != nil {
		t.Fatal(err)
	}
	return tail, s
}

func (s *seen) confirmed() []*outbox.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

func (s *seen) reloaded() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.heads)
}

func (s *seen) errors() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.errs)
}

func (s *seen) polled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.polls
}

// decide is the handler's part: nobody wants the event, unless it is a repeat.
func decide(row *outbox.Row) {
	row.Routed = domain.Routed{Routing: domain.Routing{Kind: domain.RoutingNoSubscriber}, EventName: row.Name}
	if row.DuplicateOf != 0 {
		row.Routed.Kind, row.Routed.DuplicateOf = domain.RoutingDuplicate, row.DuplicateOf
	}
}

// running is a tail at work behind a router, as a relay has it.
type running struct {
	*seen
	tail   *outbox.Tail
	router *message.Router
	ended  chan error
}

// startTail tails db; every event is decided as "nobody".
func startTail(t *testing.T, db *sql.DB, change func(*outbox.TailConfig)) *running {
	t.Helper()
	return startTailWith(t, db, change, decide)
}

// startTailWith tails db; handle gets each row.
func startTailWith(t *testing.T, db *sql.DB, change func(*outbox.TailConfig), handle func(*outbox.Row)) *running {
	t.Helper()
	tail, s := newTail(t, db, change)
	r := &running{seen: s, tail: tail, ended: make(chan error, 1)}
	var err error
	r.router, err = message.NewRouter(message.RouterConfig{CloseTimeout: deadline}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	r.router.AddConsumerHandler("route", outbox.Topic, tail.Subscriber, func(msg *message.Message) error {
		row, ok := tail.Row(msg)
		if !ok {
			return fmt.Errorf("no row for message %s", msg.UUID)
		}
		handle(row)
		return nil
	})
	go func() { r.ended <- r.router.Run(context.WithoutCancel(t.Context())) }()
	<-r.router.Running()
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t *testing.T) {
	t.Helper()
	if r.router.IsClosed() {
		return
	}
	r.tail.Stop()
	if err := r.router.Close(); err != nil {
		t.Errorf("close the router: %v", err)
	}
	if err := <-r.ended; err != nil {
		t.Errorf("run the router: %v", err)
	}
}

// reading is a tail whose messages the test takes one by one.
type reading struct {
	*seen
	tail     *outbox.Tail
	messages <-chan *message.Message
	closed   bool
}

// readTail subscribes to db's tail.
func readTail(t *testing.T, db *sql.DB, change func(*outbox.TailConfig)) *reading {
	t.Helper()
	tail, s := newTail(t, db, change)
	messages, err := tail.Subscriber.Subscribe(context.WithoutCancel(t.Context()), outbox.Topic)
	if err != nil {
		t.Fatal(err)
	}
	r := &reading{seen: s, tail: tail, messages: messages}
	t.Cleanup(func() { r.close(t) })
	return r
}

// take waits for the next message; the caller acks it.
func (r *reading) take(t *testing.T) (*message.Message, *outbox.Row) {
	t.Helper()
	select {
	case msg, ok := <-r.messages:
		if !ok {
			t.Fatal("the subscription has ended")
		}
		row, ok := r.tail.Row(msg)
		if !ok {
			t.Fatalf("no row for message %s", msg.UUID)
		}
		return msg, row
	case <-time.After(deadline):
		t.Fatalf("no message came; errors: %v", r.errors())
	}
	return nil, nil
}

// pass takes n messages, decides and acks them, and gives their rows.
func (r *reading) pass(t *testing.T, n int) []*outbox.Row {
	t.Helper()
	rows := make([]*outbox.Row, 0, n)
	for range n {
		msg, row := r.take(t)
		decide(row)
		rows = append(rows, row)
		msg.Ack()
	}
	return rows
}

// passAll passes what comes until the condition holds.
func (r *reading) passAll(t *testing.T, what string, condition func() (bool, string)) {
	t.Helper()
	eventually(t, what, func() (bool, string) {
		select {
		case msg := <-r.messages:
			if row, ok := r.tail.Row(msg); ok {
				decide(row)
			}
			msg.Ack()
		case <-time.After(time.Millisecond):
		}
		return condition()
	})
}

func (r *reading) close(t *testing.T) {
	t.Helper()
	if r.closed {
		return
	}
	r.closed = true
	r.tail.Stop()
	if err := r.tail.Subscriber.Close(); err != nil {
		t.Errorf("close the subscriber: %v", err)
	}
}

// eventually waits until the condition holds, and asks ever more seldom: it
// may cost something.
func eventually(t *testing.T, what string, condition func() (bool, string)) {
	t.Helper()
	timeout := time.NewTimer(deadline)
	defer timeout.Stop()
	for wait := 2 * time.Millisecond; ; wait = min(wait*5/4, 40*time.Millisecond) {
		ok, state := condition()
		if ok {
			return
		}
		select {
		case <-time.After(wait):
		case <-timeout.C:
			t.Fatalf("%s did not come: %s", what, state)
		}
	}
}

// within waits for a signal.
func within(t *testing.T, what string, signal <-chan struct{}) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(deadline):
		t.Fatalf("%s did not come", what)
	}
}

func scan[T any](t *testing.T, db querier, query string, args ...any) T {
	t.Helper()
	var v T
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func exec(t *testing.T, db querier, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// begin begins a transaction that is rolled back at the test's end if it is
// still open.
func begin(t *testing.T, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(context.WithoutCancel(t.Context()), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() }) // sql.ErrTxDone where it is committed
	return tx
}

func commit(t *testing.T, tx *sql.Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// awaitRouted waits until n events are routed.
func awaitRouted(t *testing.T, db *sql.DB, want int) {
	t.Helper()
	eventually(t, "the routing", func() (bool, string) {
		n := scan[int](t, db, `SELECT count(*) FROM relay.log WHERE webhook_id = 0`)
		return n >= want, fmt.Sprintf("%d of %d are routed", n, want)
	})
}

// insertSome inserts $1 events in one transaction.
const insertSome = `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'message_created', json_build_object('id', i) FROM generate_series(1, $1) i`

// link is a row of the chain.
type link struct {
	no, cursor, floor, high, low, seqMin, seqMax, commit, relayID int64
	target                                                        string // "" for none
	routed                                                        []int64
}

// chain reads the links after the first one, with what each routed.
func chain(t *testing.T, db *sql.DB) []link {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `
SELECT b.no, b.cursor, b.floor, b.high, b.low, b.seq_min, b.seq_max, b.commit, b.relay_id, coalesce(b.target::text, ''), coalesce(l.routed, '')
  FROM relay.batches b
  LEFT JOIN (SELECT pos >> 20 AS commit, string_agg(event_seq::text, ',' ORDER BY pos) AS routed FROM relay.log WHERE webhook_id = 0 GROUP BY 1) l ON l.commit = b.commit
 ORDER BY b.no`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var links []link
	for rows.Next() {
		var l link
		var routed string
		if err := rows.Scan(&l.no, &l.cursor, &l.floor, &l.high, &l.low, &l.seqMin, &l.seqMax, &l.commit, &l.relayID, &l.target, &routed); err != nil {
			t.Fatal(err)
		}
		if l.no != int64(len(links)) {
			t.Fatalf("link %d of the chain has number %d", len(links), l.no)
		}
		for text := range strings.SplitSeq(routed, ",") {
			var seq int64
			if _, err := fmt.Sscan(text, &seq); err == nil {
				l.routed = append(l.routed, seq)
			}
		}
		links = append(links, l)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return links[1:]
}

// sizes are the numbers of rows of the links.
func sizes(links []link) []int {
	sizes := make([]int, 0, len(links))
	for _, l := range links {
		sizes = append(sizes, len(l.routed))
	}
	return sizes
}

// checkOnce checks that all that is committed is routed once, by a chain
// without gaps, and that each batch that a tail confirmed is a link of it.
func checkOnce(t *testing.T, db *sql.DB, tails ...*seen) {
	t.Helper()
	links := chain(t, db)
	routed := map[int64]bool{}
	for _, l := range links {
		if len(l.routed) == 0 {
			t.Errorf("link %d routed nothing", l.no)
			continue
		}
		if l.seqMin != l.routed[0] || l.seqMax != l.routed[len(l.routed)-1] || !slices.IsSorted(l.routed) {
			t.Errorf("link %d says that it routed %d to %d, and routed %v", l.no, l.seqMin, l.seqMax, l.routed)
		}
		for _, seq := range l.routed {
			if routed[seq] {
				t.Errorf("event %d is routed twice", seq)
			}
			routed[seq] = true
		}
	}
	if n := scan[int](t, db, `SELECT count(*) FROM relay.log`); n != len(routed) {
		t.Errorf("the log has %d entries, the links of the chain have %d", n, len(routed))
	}
	missing := scan[sql.NullString](t, db, `
SELECT string_agg(e.seq || ' of ' || e.xid, ', ') FROM outbox.events e
 WHERE NOT EXISTS (SELECT FROM relay.log l WHERE l.event_seq = e.seq AND l.webhook_id = 0)`)
	if missing.Valid {
		t.Errorf("not routed: %s", missing.String)
	}
	for _, s := range tails {
		last := int64(0)
		for _, b := range s.confirmed() {
			if b.No <= last || b.No > int64(len(links)) {
				t.Errorf("batch %d is confirmed after batch %d; the chain has %d", b.No, last, len(links))
				continue
			}
			last = b.No
			l := links[b.No-1]
			seqs := make([]int64, 0, len(b.Rows))
			for _, row := range b.Rows {
				seqs = append(seqs, row.Seq)
			}
			if l.relayID != b.RelayID || l.commit != b.Commit || !slices.Equal(l.routed, seqs) {
				t.Errorf("confirmed is batch %d of relay %d, commit %d, with %v; the chain has relay %d, commit %d, with %v",
					b.No, b.RelayID, b.Commit, seqs, l.relayID, l.commit, l.routed)
			}
		}
	}
}

// checkAlone is checkOnce for a tail that nothing disturbed.
func checkAlone(t *testing.T, db *sql.DB, tail *seen) {
	t.Helper()
	checkOnce(t, db, tail)
	if errs := tail.errors(); len(errs) > 0 {
		t.Errorf("errors: %v", errs)
	}
}

func TestTailRoutesEachCommittedRowOnce(t *testing.T) {
	t.Parallel()
	for _, rows := range []int{1, 6, 7, 8, 14, 15, 50} {
		t.Run(fmt.Sprint(rows), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t).SQL
			exec(t, db, insertSome, rows)
			tail := startTail(t, db, func(c *outbox.TailConfig) { c.BatchRows = 7 })
			awaitRouted(t, db, rows)
			exec(t, db, insertSome, rows)
			awaitRouted(t, db, 2*rows)
			// The last batch is confirmed by the poll after it.
			batches := 2 * ((rows + 6) / 7)
			eventually(t, "the confirmation", func() (bool, string) {
				n := len(tail.confirmed())
				return n == batches, fmt.Sprintf("%d of %d batches are confirmed", n, batches)
			})
			tail.stop(t)
			checkAlone(t, db, tail.seen)

			links := chain(t, db)
			var want []int
			for range 2 {
				for left := rows; left > 0; left -= 7 {
					want = append(want, min(left, 7))
				}
			}
			if got := sizes(links); !slices.Equal(got, want) {
				t.Fatalf("the batches have %v rows, want %v", got, want)
			}
			// A window stays open exactly while it has rows.
			for i, l := range links {
				last := i == len(links)/2-1 || i == len(links)-1
				if open := l.target != ""; open == last {
					t.Errorf("after batch %d of %d the window is open: %t", l.no, len(links), open)
				}
			}
		})
	}
}

func TestEmptyWindowWritesNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	tail := startTail(t, db, func(c *outbox.TailConfig) { c.PollInterval = time.Millisecond })
	eventually(t, "some polls", func() (bool, string) {
		n := tail.polled()
		return n > 10, fmt.Sprintf("%d polls", n)
	})
	if n := len(chain(t, db)); n != 0 {
		t.Errorf("the chain has %d links", n)
	}
	exec(t, db, insertSome, 1)
	awaitRouted(t, db, 1)
	tail.stop(t)
	checkAlone(t, db, tail.seen)
}

func TestRowsInsertedWhileAWindowIsOpenBelongToTheNext(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	exec(t, db, insertSome, 10)
	tail := readTail(t, db, func(c *outbox.TailConfig) { c.BatchRows = 7 })
	tail.pass(t, 6)
	exec(t, db, insertSome, 4) // seq 11 to 14
	tail.pass(t, 8)
	awaitRouted(t, db, 14)
	checkAlone(t, db, tail.seen)
	links := chain(t, db)
	if got := sizes(links); !slices.Equal(got, []int{7, 3, 4}) {
		t.Fatalf("the batches have %v rows", got)
	}
	if links[0].target == "" || links[1].target != "" || links[2].target != "" {
		t.Errorf("the targets are %q, %q, %q", links[0].target, links[1].target, links[2].target)
	}
}

func TestBatchesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	// Payloads of some 10, 10, 10, 40, 10 kB, and one over the limit, which is
	// not handed over and so does not count; then metadata, which does.
	exec(t, db, `INSERT INTO outbox.events (account_id, event, payload) SELECT 1, 'e', to_json(repeat('x', 1000 * n)) FROM unnest('{10, 10, 10, 40, 10, 60}'::integer[]) WITH ORDINALITY AS u (n, i) ORDER BY i`)
	exec(t, db, `INSERT INTO outbox.events (account_id, event, payload, metadata) SELECT 1, 'e', '{}', to_json(repeat('x', 1000 * n)) FROM unnest('{20, 20, 60}'::integer[]) WITH ORDINALITY AS u (n, i) ORDER BY i`)
	tail := readTail(t, db, func(c *outbox.TailConfig) { c.BatchBytes, c.MaxBody = 30_000, 50_000 })
	rows := tail.pass(t, 9)
	awaitRouted(t, db, 9)
	checkAlone(t, db, tail.seen)
	if got := sizes(chain(t, db)); !slices.Equal(got, []int{2, 1, 1, 2, 1, 2}) {
		t.Errorf("the batches have %v rows", got)
	}
	if row := rows[5]; row.Payload != nil || row.PayloadBytes != 60_002 {
		t.Errorf("over the limit: a payload of %d bytes is handed over, its size is %d", len(row.Payload), row.PayloadBytes)
	}
	if row := rows[3]; len(row.Payload) != 40_002 || row.PayloadBytes != 40_002 {
		t.Errorf("over the limit of a batch: a payload of %d bytes is handed over, its size is %d", len(row.Payload), row.PayloadBytes)
	}
	if got := len(rows[7].Metadata); got != 20_002 {
		t.Errorf("the metadata has %d bytes", got)
	}
	if got := rows[8].Metadata; got != nil {
		t.Errorf("metadata over the limit is handed over: %d bytes", len(got))
	}
}

// Watermill acks the part of a batch that was handled when it is closed: the
// next tail goes on behind it, in the same window, also where no row of the
// window was left but those of the batch.
func TestClosedInMidBatch(t *testing.T) {
	t.Parallel()
	const batch = 7
	for _, c := range []struct{ rows, handled int }{{10, 0}, {10, 1}, {10, 4}, {10, 6}, {10, 7}, {7, 1}, {7, 6}, {5, 0}, {5, 1}, {5, 4}} {
		t.Run(fmt.Sprintf("%d of %d", c.handled, c.rows), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t).SQL
			exec(t, db, insertSome, c.rows)
			first := readTail(t, db, func(config *outbox.TailConfig) { config.BatchRows = batch })
			first.pass(t, c.handled)
			if c.handled < batch {
				first.take(t) // and not acked
			} else {
				awaitRouted(t, db, batch) // else closing may come before the last ack
			}
			first.close(t)

			links := chain(t, db)
			if c.handled == 0 {
				if len(links) != 0 {
					t.Fatalf("nothing was handled, and the chain has %d links", len(links))
				}
			} else if len(links) != 1 || len(links[0].routed) != c.handled || links[0].target == "" || links[0].cursor != int64(c.handled) {
				t.Fatalf("after %d rows the chain is %+v", c.handled, links)
			}
			exec(t, db, insertSome, 1) // of the next window
			second := readTail(t, db, func(config *outbox.TailConfig) { config.BatchRows = 100 })
			rows := second.pass(t, c.rows+1-c.handled)
			if rows[0].Seq != int64(c.handled+1) {
				t.Errorf("the second tail begins with row %d", rows[0].Seq)
			}
			awaitRouted(t, db, c.rows+1)
			checkOnce(t, db, first.seen, second.seen)
			want := []int{c.handled, c.rows - c.handled, 1}
			if c.handled == 0 {
				want = []int{c.rows + 1}
			}
			if got := sizes(chain(t, db)); !slices.Equal(got, want) {
				t.Errorf("the batches have %v rows, want %v", got, want)
			}
		})
	}
}

// Closing the router cancels the tail's transaction as well: what was handled
// is written or comes again, never both.
func TestStoppedWhileAHandlerBlocks(t *testing.T) {
	t.Parallel()
	for _, row := range []int64{1, 4, 7, 10} {
		t.Run(fmt.Sprint(row), func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t).SQL
			exec(t, db, insertSome, 20)
			entered, release, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
			first := startTailWith(t, db, func(c *outbox.TailConfig) { c.BatchRows = 7 }, func(r *outbox.Row) {
				decide(r)
				if r.Seq == row {
					close(entered)
					<-release
				}
			})
			within(t, "the row", entered)
			go func() {
				defer close(stopped)
				first.stop(t)
			}()
			second := startTail(t, db, func(c *outbox.TailConfig) { c.BatchRows = 7 })
			awaitRouted(t, db, 20)
			close(release)
			within(t, "the end of the first tail", stopped)
			second.stop(t)
			checkOnce(t, db, first.seen, second.seen)
		})
	}
}

// The floor of a window must lie below the rows of transactions that were
// under way when it opened, also where no transaction with a higher id had
// completed: the snapshot's xmax does not cover them.
func TestRowBelowTheHighestDeliveredOfATransactionAboveXmax(t *testing.T) {
	t.Parallel()
	server := pgtest.NewServer(t, nil) // the transaction ids are chosen
	for _, then := range []string{"the same tail", "another tail", "in the middle of a window"} {
		t.Run(then, func(t *testing.T) { belowHighest(t, pgtest.NewOn(t, server).SQL, then) })
	}
}

func belowHighest(t *testing.T, db *sql.DB, then string) {
	t.Helper()
	const insert = `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}') RETURNING seq`
	exec(t, db, insertSome, 3)
	before := startTail(t, db, nil)
	awaitRouted(t, db, 3)
	before.stop(t)

	straggler, y, x := begin(t, db), begin(t, db), begin(t, db)
	scan[int64](t, straggler, insert)
	yID := scan[int64](t, y, `SELECT pg_current_xact_id()::text::bigint`)
	xID := scan[int64](t, x, `SELECT pg_current_xact_id()::text::bigint`)
	xSeq := scan[int64](t, x, insert)
	ySeq := scan[int64](t, y, insert)
	if xID <= yID || xSeq >= ySeq {
		t.Fatalf("transactions %d, %d with rows %d, %d do not make the case", yID, xID, ySeq, xSeq)
	}
	commit(t, y)

	tail := readTail(t, db, func(c *outbox.TailConfig) { c.BatchRows = 1 })
	msg, row := tail.take(t)
	if row.Seq != ySeq {
		t.Fatalf("row %d came, want %d", row.Seq, ySeq)
	}
	// While its successor is in the handler:
	commit(t, x)
	if then == "in the middle of a window" {
		commit(t, straggler)
	}
	decide(row)
	msg.Ack()
	if then == "another tail" {
		awaitRouted(t, db, 4)
		tail.close(t)
		tail = readTail(t, db, nil)
	}
	tail.passAll(t, "the row", func() (bool, string) {
		n := scan[int](t, db, `SELECT count(*) FROM relay.log WHERE event_seq = $1`, xSeq)
		if tail.polled() > 100 {
			links := chain(t, db)
			t.Fatalf("row %d is lost: row %d was delivered before it, and after 100 polls the chain's head is %+v", xSeq, ySeq, links[len(links)-1])
		}
		return n == 1, ""
	})
	if xmax := scan[int64](t, db, `SELECT pg_snapshot_xmax(coalesce(target, consumed))::text::bigint FROM relay.batches WHERE seq_max = $1`, ySeq); xID < xmax {
		t.Fatalf("transaction %d is below the snapshot's xmax %d: not the case to be tested", xID, xmax)
	}
	if then != "in the middle of a window" {
		commit(t, straggler)
	}
	tail.passAll(t, "the straggler", func() (bool, string) {
		return scan[int](t, db, `SELECT count(*) FROM relay.log`) == 6, ""
	})
	checkAlone(t, db, tail.seen)
}

func TestCompetingTails(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	const tails, producers = 3, 4
	var all []*running
	var ids []int64
	wake := make(chan struct{}) // cuts the back-off after an error short
	for range tails {
		all = append(all, startTail(t, db, func(c *outbox.TailConfig) {
			c.BatchRows, c.Wake = 5, wake
			ids = append(ids, c.RelayID)
		}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var group sync.WaitGroup
	for range producers {
		group.Go(func() {
			for ctx.Err() == nil {
				if _, err := db.ExecContext(t.Context(), insertSome, 1+rand.IntN(4)); err != nil { //nolint:gosec // a load
					t.Error(err)
					return
				}
				pause(ctx, 10*time.Millisecond)
			}
		})
	}
	group.Go(func() {
		for ctx.Err() == nil {
			select {
			case wake <- struct{}{}:
			case <-ctx.Done():
			}
			pause(ctx, 4*time.Millisecond)
		}
	})
	eventually(t, "a batch by each tail, and 100 in all", func() (bool, string) {
		least, sum := math.MaxInt, 0
		for _, tail := range all {
			n := len(tail.confirmed())
			least, sum = min(least, n), sum+n
		}
		return least > 0 && sum > 100, fmt.Sprintf("one has confirmed %d, all have %d", least, sum)
	})
	cancel()
	group.Wait()
	awaitRouted(t, db, scan[int](t, db, `SELECT count(*) FROM outbox.events`))
	for i, tail := range all {
		tail.stop(t)
		for _, b := range tail.confirmed() {
			if b.RelayID != ids[i] {
				t.Errorf("tail %d confirmed batch %d of relay %d", ids[i], b.No, b.RelayID)
			}
		}
		checkOnce(t, db, tail.seen)
	}
}

// A transaction that inserted before all others and commits after them.
func TestStraggler(t *testing.T) {
	t.Parallel()
	db := pgtest.NewOn(t, pgtest.NewServer(t, nil)).SQL
	tail := startTail(t, db, nil)
	exec(t, db, insertSome, 1)
	awaitRouted(t, db, 1)

	straggler := begin(t, db)
	exec(t, straggler, insertSome, 3)
	const others = 20_000
	for range 20 {
		exec(t, db, insertSome, others/20)
	}
	awaitRouted(t, db, 1+others)
	before := len(chain(t, db))
	commit(t, straggler)
	awaitRouted(t, db, 1+others+3)
	links := chain(t, db)
	if len(links) != before+1 || len(links[before].routed) != 3 {
		t.Errorf("the straggler's rows came in batches of %v", sizes(links[before:]))
	}
	if low := links[before-1].low; low > 4 {
		t.Errorf("while it was open, low was %d", low)
	}

	// Once it has ended, stragglers are not looked for below what was
	// delivered before the oldest transaction under way.
	open := begin(t, db)
	exec(t, open, insertSome, 1)
	exec(t, db, insertSome, 1)
	awaitRouted(t, db, 1+others+3+1)
	links = chain(t, db)
	if low := links[len(links)-1].low; low < others {
		t.Errorf("low is %d, and %d rows were delivered before any transaction under way", low, others)
	}
	tail.stop(t)
	head, err := postgres.NewChain(db).Head(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(head.Consumed.InProgress) == 0 {
		t.Fatalf("the open transaction is not in %s", head.Consumed)
	}
	if text := scan[string](t, db, `SELECT consumed::text FROM relay.batches WHERE no = $1`, head.No); text != head.Consumed.String() {
		t.Errorf("snapshot %s is read as %s", text, head.Consumed)
	}
	p := explain(t, db, tail.tail, head.Position, head.XID)
	if p.read > 20 {
		t.Errorf("with one straggler to come, %d rows were read by\n%s", p.read, p.text)
	}
	commit(t, open)
	tail = startTail(t, db, nil)
	awaitRouted(t, db, 1+others+3+2)
	tail.stop(t)
	checkOnce(t, db, tail.seen)
}
