package outbox

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/outrider-relay/outrider/domain"
)

// Topic is the one topic of the tail. Every Watermill handler would be its own
// subscription with its own position, so there is one handler on one topic.
const Topic = "outbox.events"

// Row is a row of the outbox and, once its handler ran, the decision about it.
type Row struct {
	domain.ChatEvent
	// Place is how many rows of its batch are before it.
	Place int
	// Metadata is the producer's, nil where there is none, or where it is over
	// the limit of a body.
	Metadata []byte
	// Traceparent is the trace context found in it, "" for none.
	Traceparent string
	// ConfigVersion is the account's configuration version in the tail's
	// snapshot, 0 where it has none.
	ConfigVersion int64
	// DuplicateOf is the sequence number of an earlier event of the account
	// with the same id within the duplicate window, 0 where there is none.
	DuplicateOf int64
	// Routed is the handler's decision.
	Routed domain.Routed
	// Body is what is POSTed, nil where nothing is.
	Body []byte
}

// Batch is a link of the chain with the rows that it routes.
type Batch struct {
	Position
	RelayID        int64
	SeqMin, SeqMax int64
	// Began is when its poll began, or where its rows were read ahead the one in
	// that one's place; At is when it was routed. Both are by the relay's clock.
	Began, At time.Time
	Rows      []*Row
	// Commit is the number of the group commit that wrote it, known once it is
	// confirmed.
	Commit int64
}

// Head is the newest link of the chain.
type Head struct {
	Position
	// XID is the transaction that wrote it, Commit its group commit's number,
	// RelayID its relay.
	XID             uint64
	Commit, RelayID int64
}

// Chain is where positions and decisions are kept.
type Chain interface {
	// Head reads the newest link, for the relay that is to write the next.
	Head(ctx context.Context, relayID int64) (Head, error)
	// SeqAt reads the High of the newest link written before at, 0 where there
	// is none: the place in the outbox at that time.
	SeqAt(ctx context.Context, at time.Time) (int64, error)
	// Statement gives the one statement that writes the link and its
	// decisions, and writes nothing where another reader was faster. It answers
	// with two numbers: those of its group commit and of its transaction.
	Statement(batch *Batch) (query string, args []any)
	// Written tells that the batch of the last Statement is committed, as the
	// newest link, and the number of its group commit.
	Written(commit int64)
}

// TailConfig are the settings of a Tail. Zero values take the defaults named.
type TailConfig struct {
	Chain   Chain
	RelayID int64
	// Confirmed is called with each batch once it is seen committed, in order.
	// It must not block.
	Confirmed func(*Batch)
	// Reloaded is called with the chain's head whenever that was read again: a
	// committed batch may not have been confirmed. It must not block.
	Reloaded func(no int64)
	// Ready gates the next poll, so that routing does not run away from
	// sending: it blocks until more work is wanted or stop is closed. backlog says
	// that the last batch was as large as one gets. nil: it never blocks.
	Ready func(backlog bool, stop <-chan struct{})
	// Wake tells of inserts while the tail sleeps. nil: it only polls.
	Wake <-chan struct{}
	// BatchRows is the most rows in a batch. Default 2000.
	BatchRows int
	// BatchBytes is about the most payload and metadata in a batch. Default
	// 8 MiB.
	BatchBytes int
	// MaxBody is the size in bytes over which an event is quarantined. Default
	// 1 MiB.
	MaxBody int
	// DuplicateWindow is how long an event id is remembered. Default 7 days.
	DuplicateWindow time.Duration
	// PollInterval is the fallback poll of a sleeping tail. Default 1 s.
	PollInterval time.Duration
	Now          func() time.Time
	Logger       watermill.LoggerAdapter
	// OnError hears of each failed poll; the tail goes on by itself.
	OnError func(error)
}

func (c *TailConfig) setDefaults() {
	if c.BatchRows == 0 {
		c.BatchRows = 2000
	}
	if c.BatchBytes == 0 {
		c.BatchBytes = 8 << 20
	}
	if c.MaxBody == 0 {
		c.MaxBody = 1 << 20
	}
	if c.DuplicateWindow == 0 {
		c.DuplicateWindow = 7 * 24 * time.Hour
	}
	if c.PollInterval == 0 {
		c.PollInterval = time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = watermill.NopLogger{}
	}
	if c.Ready == nil {
		c.Ready = func(bool, <-chan struct{}) {}
	}
	if c.Confirmed == nil {
		c.Confirmed = func(*Batch) {}
	}
	if c.Reloaded == nil {
		c.Reloaded = func(int64) {}
	}
	if c.OnError == nil {
		c.OnError = func(error) {}
	}
}

// few is the most rows of a poll by a tail that has little to do. Where more
// come at a time, planning is a small part.
func (c *TailConfig) few() int { return min(c.BatchRows, 128) }

// near is how many rows may lie between the floor and the High where it does not
// matter by which index they are found.
const near = 1000

// Tail is the relay's end of the outbox: a Watermill subscriber, and the rows
// behind its messages.
type Tail struct {
	// Subscriber delivers each row as a message, one after the other.
	Subscriber *wsql.Subscriber
	reader     *reader
	stop       chan struct{}
	stopOnce   sync.Once
}

// reader is what Watermill's subscriber calls, one method after the other from
// one goroutine: its beginner of transactions, its schema adapter (which rows
// are next), its offsets adapter (what an ack writes) and its backoff manager
// (when to poll again).
type reader struct {
	*sql.DB
	config TailConfig
	sleep  sleeper

	// position is where the chain stands if what was last acked is committed.
	position Position
	// known says that position was read from the chain or confirmed by it.
	known bool
	// lows are the transactions and Highs of recent links, oldest first.
	lows []link
	// pending is the batch that was acked and is not yet seen committed.
	pending     *Batch
	pendingSent bool
	witness     Witness
	// undecided is the row for which the last ack was refused, 0 for none.
	undecided int64
	// began is when the poll under way began.
	began time.Time
	// dupFloor is the sequence number behind which ids are looked up.
	dupFloor   int64
	dupFloorAt time.Time

	selectFew, selectAbove string

	fetch fetch
	ahead *ahead // nil where nothing is, or is being, read ahead
	// accounts are those of the rows that were read ahead, each once.
	accounts []int64
	scan     scanned
	index    rowIndex

	life context.Context // ends when the tail is stopped
	end  context.CancelFunc
}

// link is a chain row's transaction and the High it wrote.
type link struct {
	xid  uint64
	high int64
}

// fetch is one poll's result.
type fetch struct {
	opened  Position // with the window open
	now     Snapshot
	started bool
	rows    []*Row
	more    bool // says the last of them: behind it the window has others
	ahead   bool // they were read before the batch before was written
	given   int  // of those that were
}

// rowIndex finds the row of a message; handlers run in other goroutines. Messages
// come in the order of the rows, so the next one's is known.
type rowIndex struct {
	sync.Mutex
	rows []*Row // ascending
	next int
}

// set takes the rows of a batch of which no message is out yet.
func (x *rowIndex) set(rows []*Row) {
	x.Lock()
	defer x.Unlock()
	x.rows, x.next = rows, 0
}

func (x *rowIndex) find(seq int64) (row *Row, ok bool) {
	x.Lock()
	defer x.Unlock()
	if x.next == len(x.rows) || x.rows[x.next].Seq != seq {
		x.next, ok = slices.BinarySearchFunc(x.rows, seq, func(r *Row, seq int64) int { return cmp.Compare(r.Seq, seq) })
		if !ok {
			return nil, false
		}
	}
	row = x.rows[x.next]
	x.next++
	return row, true
}

// NewTail makes the tail. db must be a pool of direct or session-pooled
// connections.
func NewTail(db *sql.DB, config TailConfig) (*Tail, error) {
	if config.Chain == nil {
		return nil, errors.New("invalid config: the chain is missing")
	}
	config.setDefaults()
	stop := make(chan struct{})
	r := &reader{DB: db, config: config}
	r.life, r.end = context.WithCancel(context.Background())
	r.selectFew, r.selectAbove = selectFew(config.few()+1), selectAbove(config.few()+1)
	r.sleep = sleeper{db: db, wake: config.Wake, stop: stop, poll: config.PollInterval}
	subscriber, err := wsql.NewSubscriber(r, wsql.SubscriberConfig{
		BackoffManager: r,
		SchemaAdapter:  r,
		OffsetsAdapter: r,
	}, config.Logger)
	if err != nil {
		return nil, err
	}
	return &Tail{Subscriber: subscriber, reader: r, stop: stop}, nil
}

// Row gives the row that a message of the tail carries. The handler leaves its
// decision there. ok is false for a message that is not of the present batch.
func (t *Tail) Row(msg *message.Message) (row *Row, ok bool) {
	seq, err := strconv.ParseInt(msg.UUID, 10, 64)
	if err != nil {
		return nil, false
	}
	return t.reader.index.find(seq)
}

// Rows gives all rows of the present batch, for a handler that reads
// configuration for all of them at once. Only a handler may call it.
func (t *Tail) Rows() []*Row { return t.reader.fetch.rows }

// ReadAhead says of the present batch that its rows were read while the batch
// before was still to be written: their DuplicateOf tells of no event in that one.
// Only a handler may call it.
func (t *Tail) ReadAhead() bool { return t.reader.fetch.ahead }

// Stop wakes a sleeping tail, so that closing the router does not wait for it.
func (t *Tail) Stop() {
	t.stopOnce.Do(func() {
		close(t.stop)
		t.reader.end()
	})
}

// errHeadMoved: the chain's head is not the one in memory. Someone else wrote,
// or our own commit failed, which Watermill does not tell.
var errHeadMoved = errors.New("the chain's head is not the one in memory: reading it again")

// BeginTx reads the chain where memory is not known to match it, then begins.
func (r *reader) BeginTx(ctx context.Context, options *sql.TxOptions) (*sql.Tx, error) {
	if !r.known {
		if err := r.reload(ctx); err != nil {
			return nil, err
		}
	}
	r.awaitAhead(ctx)
	now := r.config.Now()
	r.began = now
	if now.Sub(r.dupFloorAt).Abs() > time.Minute {
		floor, err := r.config.Chain.SeqAt(ctx, now.Add(-r.config.DuplicateWindow))
		if err != nil {
			return nil, err
		}
		r.dupFloor, r.dupFloorAt = floor, now
	}
	r.witness = Witness{}
	return r.DB.BeginTx(context.WithValue(ctx, witnessKey{}, &r.witness), options)
}

func (r *reader) reload(ctx context.Context) error {
	head, err := r.config.Chain.Head(ctx, r.config.RelayID)
	if err != nil {
		return fmt.Errorf("read the chain: %w", err)
	}
	r.dropAhead()
	r.settle(head.No, head.RelayID, head.Commit)
	r.config.Reloaded(head.No)
	r.position, r.known = head.Position, true
	r.lows = append(r.lows[:0], link{head.XID, head.High})
	r.sleep.raised = false // another tail, or a server before, may have lowered it
	return nil
}

// confirm tells of the pending batch that it is committed. Where the witness did
// not see that, it reads the chain's head back: so what was routed is sent without
// waiting for the next poll.
func (r *reader) confirm() error {
	if commit, xid, seen := r.witness.batch(); seen {
		r.config.Chain.Written(commit)
		r.settle(r.position.No, r.config.RelayID, commit)
		r.lows = append(r.lows, link{xid, r.position.High})
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), signalTimeout)
	defer cancel()
	head, err := r.config.Chain.Head(ctx, r.config.RelayID)
	if err != nil {
		r.known = false
		return fmt.Errorf("read the chain: %w", err)
	}
	if head.No != r.position.No || head.RelayID != r.config.RelayID {
		r.known = false // and settled when it is read again
		return nil
	}
	r.settle(head.No, head.RelayID, head.Commit)
	r.lows = append(r.lows, link{head.XID, head.High})
	return nil
}

// settle tells what became of the pending batch, given the chain's head.
func (r *reader) settle(head, relayID, commit int64) {
	if r.pending == nil {
		return
	}
	if head == r.pending.No && relayID == r.config.RelayID {
		r.pending.Commit = commit
		r.config.Confirmed(r.pending)
	}
	// Otherwise it was not committed, or others wrote behind it: then whoever
	// dispatches reads it from the chain.
	r.pending = nil
}

// lowFor is the High of the newest link in memory whose transaction came
// before all that were under way in the snapshot.
func (r *reader) lowFor(s Snapshot) int64 {
	newest := 0
	for newest+1 < len(r.lows) && r.lows[newest+1].xid < s.Xmin {
		newest++
	}
	r.lows = r.lows[newest:] // those before it are of no more use
	low := r.position.Low
	if r.lows[0].xid < s.Xmin {
		low = max(low, r.lows[0].high)
	}
	return low
}

// SelectQuery implements watermill-sql's SchemaAdapter.
func (r *reader) SelectQuery(string, string, wsql.OffsetsAdapter) wsql.Query {
	few := r.fetch.started && len(r.fetch.rows) <= r.config.few()/2
	r.index.set(nil)
	if r.ahead != nil {
		return r.takeAhead()
	}
	r.fetch = fetch{}
	query, args := r.poll(r.position, few)
	return wsql.Query{Query: query, Args: args}
}

// poll gives the statement that reads the rows behind p. few says that there
// will be few.
func (r *reader) poll(p Position, few bool) (query string, args []any) {
	limit := r.config.BatchRows + 1
	args = []any{r.config.MaxBody, r.config.BatchBytes, r.dupFloor, p.High}
	if p.Bound > 0 {
		return selectAdopted, append(args, p.Cursor, p.Bound, limit)
	}
	var target any
	if p.Target != nil {
		target = p.Target.String()
	}
	newest := r.lows[len(r.lows)-1]
	// Only behind an adoption is Low the higher one: its Bound. Rows of a
	// transaction after the adoption's, and so after W, lie above it.
	high := max(newest.high, p.Low)
	args = append(args, max(p.Cursor, high), p.Consumed.String(), target)
	floor := max(p.Cursor, p.Floor)
	if few && len(p.Consumed.InProgress) == 0 && floor >= high {
		return r.selectAbove, args
	}
	args = append(args,
		p.Consumed.array(), max(p.Cursor, p.Low), strconv.FormatUint(p.Consumed.Xmax, 10), floor, strconv.FormatUint(newest.xid, 10), high)
	if few && high-floor <= near {
		return r.selectFew, args
	}
	return selectRows, append(args, limit)
}

// UnmarshalMessage implements watermill-sql's SchemaAdapter. It fails on no
// content: what is odd is judged by the handler.
func (r *reader) UnmarshalMessage(scanner wsql.Scanner) (wsql.Row, error) {
	if r.fetch.ahead {
		return r.unmarshalAhead(scanner)
	}
	s := &r.scan
	if err := scanner.Scan(s.destinations()...); err != nil {
		return wsql.Row{}, err
	}
	if !r.fetch.started {
		if err := r.startFetch(s.snap.String, s.head, s.xid); err != nil {
			return wsql.Row{}, err
		}
	}
	if !s.seq.Valid {
		r.idle()
		return wsql.Row{}, sql.ErrNoRows
	}
	row, err := s.row(len(r.fetch.rows))
	if err != nil {
		return wsql.Row{}, err
	}
	r.fetch.rows, r.fetch.more = append(r.fetch.rows, row), s.more.Bool
	return r.message(row), nil
}

// message gives a row of the present fetch to Watermill. The handler finds the
// payload in the row, from which it is gone once it is routed.
func (r *reader) message(row *Row) wsql.Row {
	r.index.set(r.fetch.rows)
	return wsql.Row{Offset: row.Seq, Msg: message.NewMessage(strconv.FormatInt(row.Seq, 10), nil)}
}

// startFetch takes a poll's first row: it checks the chain's head, which
// confirms the batch before, and opens the window.
func (r *reader) startFetch(snapshot string, head int64, writtenBy string) error {
	now, err := ParseSnapshot(snapshot)
	if err != nil {
		return err
	}
	xid, err := strconv.ParseUint(writtenBy, 10, 64)
	if err != nil {
		return err
	}
	// A restore to an earlier time may have given the number to another link.
	if head != r.position.No || xid != r.lows[len(r.lows)-1].xid {
		r.known = false
		return errHeadMoved
	}
	r.sleep.xmin = now.Xmin
	r.fetch.started, r.fetch.now, r.fetch.opened = true, now, r.position.open(now)
	return nil
}

// idle closes the window in memory where a poll found nothing more in it. The
// chain learns of it with the next batch; until then a restart polls the same
// nothing again. Everything delivered so far was visible in this snapshot, so
// Floor may rise to High: transactions that were under way long ago are not
// probed for ever.
func (r *reader) idle() {
	r.position = r.fetch.opened.close(r.lowFor)
}

// ConsumedMessageQuery implements watermill-sql's OffsetsAdapter. It comes before
// each message, and before the first all rows are fetched: the time to read those
// behind them. It needs no query.
func (r *reader) ConsumedMessageQuery(_ string, next wsql.Row, _ string, _ []byte) wsql.Query {
	if r.fetch.more && next.Offset == r.fetch.rows[0].Seq && r.fetch.opened.Bound == 0 {
		r.readAhead()
	}
	return wsql.Query{}
}

// refuseUndecided is no number, so that the transaction ends here.
const refuseUndecided = `SELECT 'a row without a decision'::bigint`

// AckMessageQuery implements watermill-sql's OffsetsAdapter. It writes what
// belongs to the rows up to the acked one: Watermill acks a part of the batch
// when it stops or an ack comes too late. A row that its handler left without a
// decision must not go on record as routed to nobody: nothing is written then,
// and the batch is read again.
func (r *reader) AckMessageQuery(_ string, last wsql.Row, _ string) wsql.Query {
	rows := r.fetch.rows
	for i, row := range rows {
		if row.Seq == last.Offset {
			rows = rows[:i+1]
			break
		}
	}
	for _, row := range rows {
		if row.Routed.Kind == "" {
			r.undecided = row.Seq
			return wsql.Query{Query: refuseUndecided}
		}
	}
	complete := len(rows) == len(r.fetch.rows) && !r.fetch.more
	batch := &Batch{RelayID: r.config.RelayID, Began: r.began, At: r.config.Now(), Rows: rows, SeqMin: rows[0].Seq, SeqMax: rows[len(rows)-1].Seq}
	batch.Position = r.fetch.opened.advance(last.Offset, batch.SeqMax, complete, r.lowFor)
	r.pending, r.pendingSent = batch, false
	r.position = batch.Position
	query, args := r.config.Chain.Statement(batch)
	return wsql.Query{Query: query, Args: args}
}

// HandleError implements watermill-sql's BackoffManager: it is called after
// each poll, outside any transaction.
func (r *reader) HandleError(_ watermill.LoggerAdapter, noMsg bool, err error) time.Duration {
	if err == nil && noMsg && !r.fetch.started {
		err = errors.New("the poll ended without an answer") // Watermill does not look at rows.Err
	}
	if r.undecided != 0 {
		err = fmt.Errorf("the event at %d got no decision; its batch is read again", r.undecided)
		r.undecided = 0
	}
	if err != nil {
		r.known = false
		if !r.pendingSent {
			r.pending = nil // its statement failed, so it is not committed
		}
		if errors.Is(err, errHeadMoved) || r.sleep.stopped() {
			return 0 // closing the router cancels the poll that is under way
		}
		r.config.OnError(err)
		r.sleep.afterError()
		return 0
	}
	r.pendingSent = r.pending != nil
	if r.pending != nil {
		err = r.confirm()
	}
	switch {
	case err != nil:
	case noMsg:
		err = r.sleep.afterNothing()
	default:
		found := len(r.fetch.rows)
		full := found >= r.config.BatchRows
		err = r.sleep.afterRows(found <= r.config.few()/2, full, r.config.Now().Sub(r.began))
		r.config.Ready(full || r.fetch.more, r.sleep.stop)
	}
	if err != nil {
		r.config.OnError(err)
		r.sleep.afterError()
	}
	return 0
}

// SubscribeIsolationLevel implements watermill-sql's SchemaAdapter: the
// snapshot, the rows, the configuration and the chain's head are of one moment.
func (r *reader) SubscribeIsolationLevel() sql.IsolationLevel { return sql.LevelRepeatableRead }

// The rest of watermill-sql's adapters is not needed: rows are inserted by
// producers, the schema comes from migrations, and the position is in memory.

// InsertQuery implements watermill-sql's SchemaAdapter.
func (r *reader) InsertQuery(string, message.Messages) (wsql.Query, error) {
	return wsql.Query{}, errors.New("rows are inserted by producers: see Writer")
}

// SchemaInitializingQueries implements watermill-sql's adapters.
func (r *reader) SchemaInitializingQueries(string) []wsql.Query { return nil }

// NextOffsetQuery implements watermill-sql's OffsetsAdapter.
func (r *reader) NextOffsetQuery(string, string) wsql.Query { return wsql.Query{} }

// BeforeSubscribingQueries implements watermill-sql's OffsetsAdapter.
func (r *reader) BeforeSubscribingQueries(string, string) []wsql.Query { return nil }
