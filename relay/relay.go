package relay

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"golang.org/x/sync/errgroup"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// Config is what a Relay is made of. Zero values take the defaults named.
type Config struct {
	// Name and Version tell relays apart in audits.
	Name, Version string
	// DB is the tail's pool.
	DB       *sql.DB
	Chain    outbox.Chain
	Log      Log
	Store    Store
	Webhooks Webhooks
	Leases   Leases
	Replays  Replays
	// Projection keeps the statistics of webhooks.
	Projection Projection
	Sender     Sender
	// Partitions does one step of keeping partitions ahead; done says that
	// nothing is left to do.
	Partitions func(ctx context.Context) (step string, done bool, err error)
	// Retain does one step of erasing what has reached its age; wait says that
	// another would do nothing now. nil keeps all for ever.
	Retain func(ctx context.Context) (step string, wait bool, err error)
	// Notices tells of inserts, changed webhooks, requested replays, released
	// work and payloads about to be erased.
	Notices Notices
	// NoSend routes and records, and sends nothing: deliveries stay pending.
	NoSend bool
	// Policy is the retry policy. Default: domain.DefaultRetryPolicy.
	Policy domain.RetryPolicy
	// MaxBody is the largest body in bytes. Default 1 MiB.
	MaxBody int
	// BatchRows is the most rows routed by one statement. Default 2000.
	BatchRows int
	// Grace is how long a stop waits for attempts under way beyond the longest
	// timeout. Default: DefaultGrace.
	Grace time.Duration
	Now   func() time.Time
	// Meter hears of what the relay does. Default: nobody does.
	Meter Meter
	// Tracer makes the spans of routing. Default: there are none.
	Tracer Tracer
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Notices are the channels by which the database wakes the relay. A value may
// be lost or come too often: each has a poll as its fallback.
type Notices struct{ Inserted, Webhooks, Replays, Released, Endings chan struct{} }

// NewNotices makes the channels.
func NewNotices() Notices {
	return Notices{make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)}
}

// The intervals of the fallback polls.
const (
	webhooksInterval   = time.Second
	endingsInterval    = 2 * time.Second
	partitionsInterval = time.Minute
	retentionInterval  = 10 * time.Minute
	retentionRetry     = time.Minute     // behind somebody's lock
	retentionPause     = 2 * time.Second // while deliveries end
)

// State says what a relay is doing.
type State int32

// The states of a relay.
const (
	Starting State = iota // not registered yet: the database does not answer
	Standby               // another relay is at work
	Active                // at work
	Stopped
)

// String names the state.
func (s State) String() string {
	return [...]string{"starting", "standby", "active", "stopped"}[s]
}

// DefaultGrace is the longest timeout of an attempt, and a second to record it.
const DefaultGrace = 31 * time.Second

// Relay tails, routes, dispatches, sends and records, or stands by while
// another relay of the database does.
type Relay struct {
	config Config
	state  atomic.Int32
}

// New makes a relay.
func New(config Config) (*Relay, error) {
	switch {
	case config.DB == nil, config.Chain == nil, config.Log == nil, config.Store == nil, config.Webhooks == nil,
		config.Leases == nil, config.Replays == nil, config.Projection == nil, config.Sender == nil, config.Partitions == nil:
		return nil, errors.New("invalid config: a port is missing")
	}
	if config.Policy.Delays == nil {
		config.Policy = domain.DefaultRetryPolicy
	}
	if config.MaxBody == 0 {
		config.MaxBody = 1 << 20
	}
	if config.Grace == 0 {
		config.Grace = DefaultGrace
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Meter == nil {
		config.Meter = unmetered{}
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.Notices.Inserted == nil {
		config.Notices = NewNotices()
	}
	return &Relay{config: config}, nil
}

// State says what the relay is doing.
func (r *Relay) State() State { return State(r.state.Load()) }

// Run works until ctx ends, then finishes the attempts under way within the
// grace. A relay that lost its lease begins again as a new one. The error is
// ErrAnotherServer where the database became another: then the caller looks
// whether a relay may work there, and runs it again.
func (r *Relay) Run(ctx context.Context) error {
	end := Stopped
	defer func() { r.state.Store(int32(end)) }()
	for {
		err := r.live(ctx)
		if ctx.Err() != nil {
			if errors.Is(err, context.Canceled) || errors.Is(err, ErrAnotherServer) {
				return nil
			}
			return err
		}
		if errors.Is(err, ErrAnotherServer) {
			end = Starting
			return err
		}
		r.state.Store(int32(Starting))
		r.config.Logger.Warn("the relay begins again", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// live is one registration: stand by, work, stop.
func (r *Relay) live(ctx context.Context) error {
	id, err := r.config.Leases.Register(ctx, r.config.Name, r.config.Version)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	logger := r.config.Logger.With("relay_id", id)
	r.state.Store(int32(Standby))
	place, err := await(ctx, r.config.Leases, id, r.config.Notices.Released, logger)
	if err != nil {
		return err
	}
	r.state.Store(int32(Active))
	logger.Info("at work", "position", place.Position)
	return r.work(ctx, id, place, logger)
}

// work runs the stages until ctx ends or one of them fails.
func (r *Relay) work(ctx context.Context, id int64, place Place, logger *slog.Logger) error {
	// The stages outlive ctx: a stop lets them finish.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	group, inner := errgroup.WithContext(inner)

	lease := newLease()
	d := newDispatcher(r.config.Store, r.config.Webhooks, r.config.Policy, r.config.Now, logger)
	d.recorder = newRecorder(r.config.Log, id, logger, d.recorded)
	d.meter, d.recorder.meter = r.config.Meter, r.config.Meter
	defer r.config.Meter.Load(Load{})
	senders := newSenders(inner, r.config.Sender, lease, d.finished)
	d.send = senders.send
	position := newPlaceKeeper(place)
	d.moved = position.set

	replayer := newReplayer(r.config.Replays, id, d, r.config.Now, logger)

	restore := func() error { return errors.Join(replayer.restore(inner), d.restore(inner, place)) }
	if r.config.NoSend {
		restore = func() error { return nil }
	}
	group.Go(func() error {
		return lease.keep(inner, meteredLeases{r.config.Leases, r.config.Meter}, id, position.get, logger)
	})
	statistics, err := newProjector(inner, r.config.Projection, id, func() int64 { return position.get().Low }, logger)
	if err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}
	d.recorder.done = func(group []*step) {
		statistics.recorded(group) // first: see projector.add
		d.recorded(group)
	}
	if err := restore(); err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}

	tail, err := r.tail(id, d, statistics, logger)
	if err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}
	router, err := r.router(tail, logger)
	if err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}
	stop := make(chan struct{})
	dispatched := make(chan struct{})
	group.Go(func() error { return router.Run(inner) })
	if !r.config.NoSend {
		group.Go(func() error { return d.recorder.run(inner) })
		group.Go(func() error { defer close(dispatched); return d.run(inner, stop) })
		group.Go(func() error { senders.run(inner); return nil })
		group.Go(func() error { d.refresh(inner, r.config.Notices.Webhooks, webhooksInterval); return nil })
		group.Go(func() error { replayer.run(inner, r.config.Notices.Replays); return nil })
		group.Go(func() error {
			d.watchEndings(inner, id, r.config.Now, r.config.Notices.Endings, endingsInterval)
			return nil
		})
	} else {
		close(dispatched)
	}
	group.Go(func() error { return statistics.run(inner) })
	group.Go(func() error { r.keepPartitions(inner, logger); return nil })
	if r.config.Retain != nil {
		group.Go(func() error { r.retain(inner, logger); return nil })
	}

	select {
	case <-ctx.Done():
		logger.Info("stopping: no new work is taken, attempts under way are finished")
	case <-inner.Done():
	}
	tail.Stop()
	close(stop)
	if err := router.Close(); err != nil {
		logger.Warn("the tail did not stop in time; what it had not committed is read again", "error", err)
	}
	select {
	case <-dispatched:
	case <-inner.Done():
	case <-time.After(r.config.Grace):
		logger.Warn("the grace is over: attempts still under way end as unknown")
	}
	cancel()
	err = group.Wait()
	senders.close()
	if errors.Is(err, ErrFenced) || errors.Is(err, ErrAnotherServer) {
		return err
	}
	release, done := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer done()
	if releaseErr := r.config.Leases.Release(release, id, position.get()); releaseErr != nil {
		logger.Warn("giving up the lease failed; a successor waits until it ends", "error", releaseErr)
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// tail makes the reader of the outbox.
func (r *Relay) tail(id int64, d *dispatcher, statistics *projector, logger *slog.Logger) (*outbox.Tail, error) {
	config := outbox.TailConfig{
		Chain: r.config.Chain, RelayID: id, Wake: r.config.Notices.Inserted,
		BatchRows: r.config.BatchRows, MaxBody: r.config.MaxBody, Now: r.config.Now,
		OnError: func(err error) {
			if !errors.Is(err, context.Canceled) { // that is a stop
				logger.Warn("tailing failed, trying again", "error", err)
			}
		},
	}
	config.Confirmed, config.Reloaded = r.confirmed(statistics.confirmed), statistics.reloaded
	if !r.config.NoSend {
		config.Confirmed = r.confirmed(func(batch *outbox.Batch) { statistics.confirmed(batch); d.confirmed(batch) })
		config.Reloaded = func(no int64) { statistics.reloaded(no); d.reloaded(no) }
		config.Ready = d.ready
	}
	return outbox.NewTail(r.config.DB, config)
}

// router makes the Watermill router with its one handler.
func (r *Relay) router(tail *outbox.Tail, logger *slog.Logger) (*message.Router, error) {
	// Watermill's own messages are for debugging: each failure of a poll is
	// told by the tail once.
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: 5 * time.Second}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	handler := &routing{
		tail: tail, webhooks: r.config.Webhooks, saltKey: r.config.Store.SaltKey, maxBody: r.config.MaxBody, logger: logger,
		configs: map[domain.AccountID]domain.Configuration{}, seen: map[eventKey]int64{},
	}
	router.AddConsumerHandler("route", outbox.Topic, tail.Subscriber, handler.handle)
	return router, nil
}

// keepPartitions keeps partitions ahead until ctx ends.
func (r *Relay) keepPartitions(ctx context.Context, logger *slog.Logger) {
	for {
		wait := partitionsInterval
		for {
			step, done, err := r.config.Partitions(ctx)
			if err != nil {
				if ctx.Err() == nil {
					logger.Warn("a step of keeping partitions ahead failed, trying again", "error", err)
				}
				wait = partitionsInterval / 6
				break
			}
			if done {
				break
			}
			logger.Info("partitions", "step", step)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// retain erases what has reached its age, until ctx ends. What has to wait, for
// deliveries to end or for somebody's lock, is looked at again sooner.
func (r *Relay) retain(ctx context.Context, logger *slog.Logger) {
	waits := ""
	for {
		wait := retentionInterval
		for {
			step, idle, err := r.config.Retain(ctx)
			if err != nil {
				if ctx.Err() == nil {
					logger.Warn("a step of retention failed, trying again", "error", err)
				}
				wait = retentionRetry
				break
			}
			if idle {
				if step != "" {
					wait = retentionPause
				}
				if step != waits {
					waits = step
					logger.Info("retention waits", "for", cmp.Or(step, "nothing more"))
				}
				break
			}
			logger.Info("retention", "step", step)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// placeKeeper holds the place that signs of life tell.
type placeKeeper struct {
	mu    sync.Mutex
	place Place
}

func newPlaceKeeper(place Place) *placeKeeper { return &placeKeeper{place: place} }

func (k *placeKeeper) get() Place {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.place
}

func (k *placeKeeper) set(place Place) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.place = place
}
