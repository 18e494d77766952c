package relay

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

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
	// Notices tells of inserts, routed batches, changed webhooks, requested
	// replays, released work and payloads about to be erased.
	Notices Notices
	// NoSend routes and records, and sends nothing: deliveries stay pending.
	NoSend bool
	// Policy is the retry policy of webhooks without a schedule of their own.
	// Default: domain.DefaultRetryPolicy.
	Policy domain.RetryPolicy
	// Breaker is when circuit breakers open, and their probes. Default:
	// domain.DefaultBreakerPolicy.
	Breaker domain.BreakerPolicy
	// DisableAfter is how long a webhook may do nothing but fail before it is
	// disabled. Default: DefaultDisableAfter; below 0 none is.
	DisableAfter time.Duration
	// MaxBody is the largest body in bytes. Default 1 MiB.
	MaxBody int
	// BatchRows is the most rows routed by one statement. Default 2000.
	BatchRows int
	// MaxInFlight is how many attempts may be under way at once. Default:
	// DefaultInFlight.
	MaxInFlight int
	// Grace is how long a stop waits for attempts under way beyond the longest
	// timeout. Default: DefaultGrace.
	Grace time.Duration
	// Now is the clock that due times are told by, the same for all relays of a
	// database as nearly as can be: what one relay left is due by the clock of
	// another. A step back of it is spread over twice its length. Leases and
	// timeouts are told by the process's monotonic clock. Default: time.Now.
	Now func() time.Time
	// Meter hears of what the relay does. Default: nobody does.
	Meter Meter
	// Tracer makes the spans of routing. Default: there are none.
	Tracer Tracer
	// Logger defaults to slog.Default.
	Logger *slog.Logger
}

// Notices are the channels by which the database wakes the relay. A value may
// be lost or come too often: each has a poll as its fallback.
type Notices struct{ Inserted, Batches, Webhooks, Replays, Released, Endings chan struct{} }

// NewNotices makes the channels.
func NewNotices() Notices {
	one := func() chan struct{} { return make(chan struct{}, 1) }
	return Notices{one(), one(), one(), one(), one(), one()}
}

// The intervals of the fallback polls.
const (
	batchesInterval    = time.Second
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
	Standby               // others have all of the work
	Active                // at work
	Stopped
)

// String names the state.
func (s State) String() string {
	return [...]string{"starting", "standby", "active", "stopped"}[s]
}

// DefaultGrace is the longest timeout of an attempt, and a second to record it.
const DefaultGrace = 31 * time.Second

// Relay tails, routes, dispatches, sends and records. Of several relays of a
// database one tails, and each has a share of the webhooks.
type Relay struct {
	config Config
	state  atomic.Int32
	share  atomic.Pointer[Share]
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
	if config.Breaker == (domain.BreakerPolicy{}) {
		config.Breaker = domain.DefaultBreakerPolicy
	}
	if config.DisableAfter == 0 {
		config.DisableAfter = DefaultDisableAfter
	}
	if config.MaxBody == 0 {
		config.MaxBody = 1 << 20
	}
	if config.MaxInFlight == 0 {
		config.MaxInFlight = DefaultInFlight
	}
	if config.Grace == 0 {
		config.Grace = DefaultGrace
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.Now = steady(config.Now)
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

// Share says what of the work the relay has.
func (r *Relay) Share() Share {
	if share := r.share.Load(); share != nil {
		return *share
	}
	return Share{}
}

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

// live is one registration: take a share of the work, work, stop.
func (r *Relay) live(ctx context.Context) error {
	id, err := r.config.Leases.Register(ctx, r.config.Name, r.config.Version, !r.config.NoSend)
	switch {
	case err != nil && ctx.Err() != nil:
		return ctx.Err() // what the database makes of a stop is another error
	case err != nil:
		return fmt.Errorf("register: %w", err)
	}
	logger := r.config.Logger.With("relay_id", id)
	r.state.Store(int32(Standby))
	defer r.share.Store(nil)
	position := &placeKeeper{}
	err = r.work(ctx, id, position, logger)
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

// work runs the stages until ctx ends or one of them fails.
func (r *Relay) work(ctx context.Context, id int64, position *placeKeeper, logger *slog.Logger) error {
	// The stages outlive ctx: a stop lets them finish.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	group, inner := errgroup.WithContext(inner)
	fail := func(err error) error {
		cancel()
		return errors.Join(err, group.Wait())
	}

	lease := newLease()
	d := newDispatcher(r.config.Store, r.config.Webhooks, r.config.Policy, r.config.Now, logger)
	d.most, d.breaking, d.disableAfter = r.config.MaxInFlight, r.config.Breaker, r.config.DisableAfter
	d.recorder = newRecorder(r.config.Log, id, logger, d.recorded)
	d.meter, d.recorder.meter = r.config.Meter, r.config.Meter
	defer r.config.Meter.Load(Load{})
	senders := newSenders(inner, r.config.Sender, lease, d.finished)
	d.send = senders.send
	d.moved = position.set
	group.Go(func() error {
		return lease.keep(inner, meteredLeases{r.config.Leases, r.config.Meter}, id, position.get, logger)
	})
	if err := d.prepare(inner); err != nil {
		return fail(err)
	}
	position.set(d.place())
	shards := func() Shards { return r.Share().Shards }
	replayer := newReplayer(r.config.Replays, id, shards, d, r.config.Now, logger)
	if !r.config.NoSend {
		if err := replayer.restore(inner); err != nil {
			return fail(err)
		}
	}
	statistics, err := newProjector(inner, r.config.Projection, id, func() int64 { return position.get().Low }, logger)
	if err != nil {
		return fail(err)
	}
	d.recorder.done = func(group []*step) {
		statistics.recorded(group) // first: see projector.add
		d.recorded(group)
	}
	tailing, err := r.newTailing(id, d, statistics, logger)
	if err != nil {
		return fail(err)
	}
	sharing := &sharing{
		leases: r.config.Leases, relayID: id, sends: !r.config.NoSend, logger: logger, lose: d.lose, gave: d.gaveUp,
		gain: func(ctx context.Context, places []Place, live []int64) error {
			return d.gain(ctx, places, live, r.config.Now())
		},
		tail: func(ctx context.Context) error { return tailing.begin(ctx, inner, group) },
		changed: func(owns Share, others int) {
			tailing.others.Store(int64(others))
			state := Standby
			if owns != (Share{}) {
				state = Active
			}
			r.state.Store(int32(state))
			r.share.Store(&owns)
			statistics.look()
			replayer.sharesChanged()
		},
	}

	stop := make(chan struct{})
	dispatched := make(chan struct{})
	if !r.config.NoSend {
		group.Go(func() error { return d.recorder.run(inner) })
		group.Go(func() error { defer close(dispatched); return d.run(inner, stop) })
		group.Go(func() error { senders.run(inner); return nil })
		group.Go(func() error { d.follow(inner, r.config.Notices.Batches, batchesInterval); return nil })
		group.Go(func() error { d.refresh(inner, r.config.Notices.Webhooks, webhooksInterval); return nil })
		group.Go(func() error { replayer.run(inner, r.config.Notices.Replays); return nil })
		group.Go(func() error {
			d.watchEndings(inner, id, shards, r.config.Now, r.config.Notices.Endings, endingsInterval)
			return nil
		})
	} else {
		close(dispatched)
	}
	group.Go(func() error { return statistics.run(inner) })
	sharable, unshare := context.WithCancel(inner)
	defer unshare()
	shared := make(chan struct{})
	group.Go(func() error { defer close(shared); return sharing.run(sharable, r.config.Notices.Released) })

	select {
	case <-ctx.Done():
		logger.Info("stopping: no new work is taken, attempts under way are finished")
	case <-inner.Done():
	}
	unshare()
	<-shared
	if inner.Err() == nil {
		sharing.leave(inner)
	}
	tailing.end(inner)
	close(stop)
	select {
	case <-dispatched:
	case <-inner.Done():
	case <-time.After(r.config.Grace):
		logger.Warn("the grace is over: attempts still under way end as unknown")
	}
	cancel()
	err = group.Wait()
	senders.close()
	return err
}

// placeKeeper holds the place that signs of life tell.
type placeKeeper struct {
	mu    sync.Mutex
	place Place
}

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
