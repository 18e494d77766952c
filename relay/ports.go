package relay

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// Request is one POST to make.
type Request struct {
	// Webhook is shared and never changed.
	Webhook      *domain.Webhook
	EventID      domain.EventID
	Notification domain.NotificationID
	Delivery     domain.DeliveryID
	Replay       domain.ReplayID
	Event        string
	Attempt      int
	// Previous is the outcome of the attempt before, OutcomeNone for the first.
	Previous domain.OutcomeKind
	// Traceparent is the producer's W3C trace context, "" where there is none.
	Traceparent string
	Body        []byte
}

// Sender makes the POST of an attempt within the webhook's timeout and says
// what came of it. It never fails: whatever happens is an outcome.
type Sender interface {
	Send(ctx context.Context, request Request) domain.Outcome
}

// DueKind says what a due row waits for.
type DueKind byte

// The kinds of due rows, as the table keeps them.
const (
	DueNone     DueKind = 0
	DueRetry    DueKind = 'r' // its next attempt
	DueHold     DueKind = 'h' // the end of its hold
	DuePaused   DueKind = 'p' // its webhook's resumption, or its deadline
	DueOverflow DueKind = 'o' // room in memory
)

// Due is a row of the due table: a delivery that must wait, at the version its
// stream had when it began to.
type Due struct {
	Key     domain.DeliveryKey
	Version int
	Kind    DueKind
	// At is when the wait ends by itself.
	At time.Time
	// Pos is the place in the log of the entry that scheduled the delivery:
	// the routing order.
	Pos int64
	// Order is the hash of the ordering key, 0 for none.
	Order int64
}

// Change is one step of one delivery: entries for its stream and the due rows
// that it ends and begins. It is written whole or not at all.
type Change struct {
	Key       domain.DeliveryKey
	AccountID domain.AccountID
	// First is the version of the first entry.
	First   int
	Entries []domain.Entry
	// EventID is set where the first entry schedules the delivery.
	EventID domain.EventID
	// Ends is the version of the due row that the step ends, 0 for none.
	Ends int
	// Waits is the due row that the step begins; Kind is DueNone for none.
	Waits Due
	// Tells is what the operator is told of the step, nil for nothing.
	Tells *domain.OperatorEvent
}

var (
	// ErrFenced says that another relay has taken over: nothing was written,
	// and nothing will be.
	ErrFenced = errors.New("another relay has taken over from this one")
	// ErrAnotherServer says that a connection leads to another server or
	// database than the relay began on, or to the same one started anew. What
	// is in memory may not be so there: Run returns with it, and what it
	// remembered is gone.
	ErrAnotherServer = errors.New("the database's server was started anew, or is another one")
	// ErrConflict says that a stream has one of the versions already.
	ErrConflict = errors.New("the delivery's stream was continued by someone else")
	// ErrRefused says that PostgreSQL refused a value: trying again is no use.
	ErrRefused = errors.New("the database refused the entry")
)

// Log appends to the streams of deliveries.
type Log interface {
	// Record writes changes in one transaction and gives its number. What the
	// operator is told is a chat event of that transaction, where a webhook of the
	// operator's account has subscribed to it; only then. The error
	// is ErrFenced, ErrConflict or ErrRefused, or one of the connection, after
	// which the changes may or may not be written.
	Record(ctx context.Context, relayID int64, changes []Change) (commit int64, err error)
	// Written tells whether the change's entries are in the log, written by
	// this relay.
	Written(ctx context.Context, relayID int64, change Change) (bool, error)
}

// Delivery is a delivery as it is read back: its stream folded, and what is
// needed to send it.
type Delivery struct {
	Key         domain.DeliveryKey
	AccountID   domain.AccountID
	EventID     domain.EventID
	Event       string
	OrderingKey string
	Traceparent string
	// InsertedAt is when its chat event was inserted, by the database's clock,
	// zero where that is not known any more.
	InsertedAt time.Time
	// Pos is the place in the log of the entry that scheduled it.
	Pos   int64
	State domain.Delivery
	// Body is nil where the payload is gone or is not what was routed, where Unread
	// says that a read had no room for it, and where Cancels is set.
	Body   []byte
	Unread bool
	// Cancels is the version of its webhook whose disabling or deletion cancels it,
	// or a later one: it was read without its body then. 0 for none.
	Cancels int64
	// Size is how many bytes the body has, or its payload where it is unread.
	Size int
	// Due is the row it was found by; Kind is DueNone where there is none.
	Due Due
	// Starter is the relay that began its attempt, where a read of open attempts
	// found it.
	Starter int64
	// Unreadable says why its log cannot be read, nil where it can. Only Key,
	// Pos and Due are filled in then.
	Unreadable error
}

// Cursor is a place in the due table, in the order of time and routing.
type Cursor struct {
	At  time.Time
	Pos int64
}

// Blocked counts the failed and the held deliveries of one ordering key that
// wait in the due table.
type Blocked struct {
	WebhookID    domain.WebhookID
	Order        int64
	Failed, Held int
}

// Endings are chat events whose payloads are about to be erased: by retention
// all below a place, on request some others. Their deliveries end.
type Endings struct {
	Below  int64
	Events []int64
	// Version grows with each that was asked for. All up to it are here.
	Version int64
}

// Left is what the last owner of shards left undone.
type Left struct {
	// Open are deliveries with an attempt that has no outcome, without their
	// bodies.
	Open []Delivery
	// Waiting are the webhooks of which something is in the due table.
	Waiting []Waiting
}

// Waiting says what of a webhook is in the due table, however much it is.
type Waiting struct {
	WebhookID domain.WebhookID
	// Fresh says that a first delivery is due or in overflow, Replays that one
	// of a replay is.
	Fresh, Replays bool
	// Timed says that something waits for its time, Held that something is held
	// for order, Paused by a pause.
	Timed, Held, Paused bool
}

// Store reads what waits to be delivered, and what routing needs beside the
// configuration. No read grows with history. Where one
// takes room, that is how many bytes of bodies it gives; what is beyond comes
// unread.
type Store interface {
	// SaltKey gives the key that the salt of a chat event about to be routed is
	// derived from, and makes it, durably, where there is none.
	SaltKey(ctx context.Context, eventSeq int64) (domain.SaltKey, error)
	// Head gives the number of the newest committed batch, and of the group
	// commit that wrote it.
	Head(ctx context.Context) (no, commit int64, err error)
	// Batches reads the deliveries of the batch from, and of some that follow it
	// up to the batch to, that are to webhooks of these shards and neither started
	// nor due, in routing order. last is the last batch that it read.
	Batches(ctx context.Context, shards Shards, from, to int64, room int) (found []Delivery, last int64, err error)
	// DueBefore reads the shards' retries and holds from cursor on whose time has
	// come, oldest first, and when to look again: no later than the next one
	// behind them is due, zero where there is none.
	DueBefore(ctx context.Context, shards Shards, cursor Cursor, now time.Time, limit, room int) (found []Delivery, next time.Time, err error)
	// DueOf reads what is due of one webhook behind cursor, oldest first: its
	// first deliveries, or those of replays.
	DueOf(ctx context.Context, webhook domain.WebhookID, replays bool, cursor Cursor, now time.Time, limit, room int) ([]Delivery, error)
	// Held reads the deliveries held in one ordering key, in routing order.
	Held(ctx context.Context, webhook domain.WebhookID, order int64, limit, room int) ([]Delivery, error)
	// Body reads the body of a delivery, nil where the payload is gone or is not
	// what was routed, and where cancels is set: see Delivery.Cancels.
	Body(ctx context.Context, key domain.DeliveryKey) (body []byte, cancels int64, err error)
	// Left reads, in one snapshot, what the last owner of shards left undone. Open
	// attempts are looked for from low on, a place in the log. What is in overflow
	// by a clock that was ahead of this one is due from now on. The cost grows
	// with the webhooks of which something waits, not with how much.
	Left(ctx context.Context, shards Shards, low int64, now time.Time) (Left, error)
	// Blocked counts, in one snapshot, what waits of some webhooks by ordering
	// key, but for the deliveries named, and tells take of each key. Of a webhook
	// it reads most rows of each lane, 0 for all; those that have more are in deep,
	// and what take heard of them is not all.
	Blocked(ctx context.Context, webhooks []domain.WebhookID, but []domain.DeliveryKey, most int, take func(Blocked)) (deep []domain.WebhookID, err error)
	// Reread reads deliveries as they are now, with what is due of them, without
	// their bodies.
	Reread(ctx context.Context, known []Delivery) ([]Delivery, error)
	// Hurry makes what a webhook's pause held back due now, or all that waits
	// of it. The relay's clock says when that is: by another one that is ahead,
	// nobody would find it.
	Hurry(ctx context.Context, webhook domain.WebhookID, all bool, now time.Time) error
	// Endings reads what is to end although its time has not come.
	Endings(ctx context.Context) (Endings, error)
	// HurryEndings makes all that waits of it in some shards due now, by the
	// relay's clock, and lists the webhooks that it made something due of.
	HurryEndings(ctx context.Context, endings Endings, shards Shards, now time.Time) ([]domain.WebhookID, error)
	// EndingsSeen says on record that the relay begins nothing of it any more.
	// Until every relay that sends has said so, nothing is erased.
	EndingsSeen(ctx context.Context, relayID int64, endings Endings) error
}

// Webhooks reads the configuration, and changes it where a receiver asks.
type Webhooks interface {
	// Disable disables a webhook, on record, with the reason. One that is
	// disabled or gone stays as it is.
	Disable(ctx context.Context, account domain.AccountID, id domain.WebhookID, reason string) error
	// ChangeBreaker says on record that a webhook's breaker opened or closed, and
	// gives the webhook as it is then: the zero value where it cannot be changed.
	ChangeBreaker(ctx context.Context, account domain.AccountID, id domain.WebhookID, command domain.WebhookCommand) (domain.Webhook, error)
	// FailingSince gives since when the attempts on record of a webhook have all
	// failed and nobody changed it, zero where the last one succeeded.
	FailingSince(ctx context.Context, id domain.WebhookID) (time.Time, error)
	// Load reads webhooks by id.
	Load(ctx context.Context, ids []domain.WebhookID) ([]domain.Webhook, error)
	// Changed reads the webhooks changed since a snapshot, and the present
	// one; since "" gives only that.
	Changed(ctx context.Context, since string) (changed []domain.Webhook, snapshot string, err error)
	// Configurations reads accounts' webhooks in the snapshot of tx.
	Configurations(ctx context.Context, tx *sql.Tx, accounts []domain.AccountID) (map[domain.AccountID]domain.Configuration, error)
	// Tested reads, in the snapshot of tx, which webhook the chat event at this
	// place is a test of, 0 for none: anybody may call an event webhook_test.
	Tested(ctx context.Context, tx *sql.Tx, eventSeq int64) (domain.WebhookID, error)
	// Told reads, in the snapshot of tx, which of the chat events at these places
	// the relay wrote itself, to tell the operator: anybody may give a row the
	// operator's account.
	Told(ctx context.Context, tx *sql.Tx, eventSeqs []int64) ([]int64, error)
}

// Place is where a relay has to begin with shards, or how far it has come.
type Place struct {
	// Position is the last batch of which each delivery to these shards is
	// started, finished or in the due table.
	Position int64
	// Low is the lowest place in the log of an attempt without an outcome.
	Low int64
	// Shards are those that it tells of.
	Shards Shards
}

// Share is a part of the work: shards of webhooks, and the tail of the outbox.
type Share struct {
	Shards Shards
	Tail   bool
}

// Member is a relay that nobody has fenced.
type Member struct {
	ID int64
	// Beat is the number of its newest sign of life, 0 before the first.
	Beat int64
	// Sends is false for one that only routes.
	Sends bool
	// Leaving says that it stops, and takes nothing any more.
	Leaving bool
	// Share is what it owns.
	Share Share
}

// Leases are claims to parts of the work, each of one relay at a time.
type Leases interface {
	// Register enters a relay and gives its id.
	Register(ctx context.Context, name, version string, sends bool) (int64, error)
	// Members lists the relays in the order of their ids, and what nobody owns.
	// ErrAnotherServer as Beat.
	Members(ctx context.Context) (members []Member, free Share, err error)
	// Beat gives a sign of life. ErrFenced where another relay took over,
	// ErrAnotherServer where the database is not the one that the relay began on.
	Beat(ctx context.Context, relayID, n int64, place Place) error
	// Claim takes of a share what nobody owns, or what is the relay's already, and
	// says where to begin with the shards of it. ErrFenced as Beat.
	Claim(ctx context.Context, relayID int64, wanted Share) (claimed Share, places []Place, err error)
	// GiveUp lets others claim a share, with the places where they have to begin
	// with its shards.
	GiveUp(ctx context.Context, relayID int64, given Share, places []Place) error
	// Leave says that the relay takes nothing any more.
	Leave(ctx context.Context, relayID int64) error
	// Fence takes all from a dead relay, which writes nothing from then on.
	// Others may claim it. ErrFenced where the relay that asks is fenced itself.
	Fence(ctx context.Context, relayID, dead int64) error
	// Announce tells the other relays that there are batches to dispatch.
	Announce(ctx context.Context) error
	// Release ends a relay's membership, and gives up what it still has.
	Release(ctx context.Context, relayID int64, place Place) error
}

// Ended is an attempt, a delivery or both whose end is on record.
type Ended struct {
	// Outcome is how the attempt ended, OutcomeNone where none did. Class is
	// why it failed, Took how long the POST took.
	Outcome domain.OutcomeKind
	Class   domain.ErrorClass
	Took    time.Duration
	// Arrived says that Arrival is known: from the insertion of the chat event,
	// by the database's clock, to the end of the attempt that brought it, by
	// the relay's.
	Arrived bool
	Arrival time.Duration
	// Status is how the delivery ended, DeliveryNone where it goes on.
	Status domain.DeliveryStatus
}

// Load is what a relay has in memory.
type Load struct {
	// InFlight are attempts under way, Waiting first deliveries that wait for
	// theirs, Bodies the bytes of their bodies.
	InFlight, Waiting, Bodies int
	// Overflowing are webhooks whose new work goes through the due table.
	Overflowing int
	// Open are webhooks whose breaker is open, HalfOpen those of which a probe is
	// under way.
	Open, HalfOpen int
	// Undispatched are routed batches of which a delivery to the relay's shards is
	// neither started, finished nor in the due table.
	Undispatched int64
}

// Meter hears of what the relay does, in groups. Its methods must not block and
// keep nothing that they are given; some are called at the same time.
type Meter interface {
	// Routed hears of a batch that is on record, and how long that took from
	// the beginning of its poll.
	Routed(batch *outbox.Batch, took time.Duration)
	// Recorded hears of a try to record steps in one transaction.
	Recorded(steps int, took time.Duration, err error)
	// Ended hears of ends that are on record.
	Ended(ends []Ended)
	// Load hears of it some times a second while the relay works, and of none
	// when it stops.
	Load(load Load)
	// Beat hears of each sign of life that the database took, and when it was
	// begun.
	Beat(begun time.Time)
}

// Tracer makes the spans of routing. Those of attempts are made by a Sender.
type Tracer interface {
	// Routed hears of a batch that is on record. It must not block, and keeps
	// nothing of it.
	Routed(batch *outbox.Batch)
}
