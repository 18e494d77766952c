package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// demoTimeout is the webhooks': attempts that the killed relay leaves open
	// are given up after it.
	demoTimeout = 2 * time.Second

	// demoConcurrency lets the slow webhook follow the traffic.
	demoConcurrency = 64

	// demoConversations are many, so that few deliveries of one follow each
	// other: a conversation waits 5 s for each one that fails.
	demoConversations = 150

	// demoOrderHold is longer than the demo, so that every conversation is in
	// order to the end.
	demoOrderHold = 10 * time.Minute

	// demoHorizon: a retry that is due later is not waited for. It is more than
	// the first retry's 5 s ± 10 %, and less than the second's 30 s.
	demoHorizon = 6 * time.Second

	// demoPatience is how long the demo waits, from the last event on, until
	// nothing is left to do but later retries.
	demoPatience = 90 * time.Second

	killPatience = 30 * time.Second
)

// demo is the bounded run: traffic, a kill in the middle, and a verdict.
type demo struct {
	*sandbox
	killedAt time.Time
	killed   int // the killed relay's process id
	inFlight int // POSTs at the kill
	down     time.Duration
	lastAt   time.Time // the last event was committed
}

func newDemo(s *sandbox) *demo { return &demo{sandbox: s} }

// run is the whole demo. The error says which promise was not kept.
func (d *demo) run(ctx context.Context) error {
	d.say("%s chat events of 3 accounts are inserted, %g a second; in the middle the relay is killed.\n", grouped(d.options.events), d.options.rate)
	if err := d.play(ctx); err != nil {
		return err
	}
	d.lastAt = time.Now()
	if err := d.settle(ctx); err != nil {
		return err
	}
	// So that what is read fits together.
	if err := d.relay.stop(stopTimeout); err != nil {
		return fmt.Errorf("stop the relay: %w", err)
	}
	books, err := d.readBooks(ctx)
	if err != nil {
		return err
	}
	promises := books.judge()
	if err := d.tell(ctx, books, promises); err != nil {
		return err
	}
	return broken(promises)
}

// broken is the error of the promises that were not kept, nil if all were.
func broken(promises []promise) error {
	var list []string
	for _, p := range promises {
		if !p.kept {
			list = append(list, p.text+": "+p.measured)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return errors.New("a promise was not kept: " + strings.Join(list, "; "))
}

// play writes all events, and kills the relay in the middle.
func (d *demo) play(ctx context.Context) error {
	playing, stop := context.WithCancel(ctx)
	played := make(chan error, 1)
	go func() { played <- d.traffic.Run(playing) }()
	err := d.killAndStartAgain(ctx, played)
	if err != nil {
		stop()
	}
	running := context.WithoutCancel(ctx) // the traffic ends with ctx; its end is awaited
	if waitErr := d.while(running, played, func() string { return d.progress("") }); err == nil {
		err = waitErr
	}
	stop()
	if err == nil {
		err = ctx.Err()
	}
	return err
}

// while shows a line until something has ended, and gives its error.
func (d *demo) while(ctx context.Context, ended <-chan error, line func() string) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			d.live.show(line(), 2*time.Second)
		}
	}
}

func (d *demo) progress(note string) string {
	committed := d.traffic.Counts().Committed
	line := fmt.Sprintf("%s %s of %s inserted, %s delivered", bar(committed, d.options.events), grouped(committed), grouped(d.options.events), grouped(d.received().Succeeded))
	if note != "" {
		line += ", " + note
	}
	return line
}

// killAndStartAgain kills the relay while POSTs are under way, once half of the
// events are committed.
func (d *demo) killAndStartAgain(ctx context.Context, played chan error) error {
	if err := d.awaitMoment(ctx, played); err != nil {
		return err
	}
	d.inFlight = d.received().InFlight
	d.killed = d.relay.pid()
	d.killedAt = time.Now()
	d.relay.kill()
	d.say("kill -9 %d: the relay is dead, with %d POSTs under way. It is started again at once.", d.killed, d.inFlight)
	if err := d.startRelay(); err != nil {
		return err
	}
	active := make(chan error, 1)
	go func() { active <- d.awaitActive(ctx) }()
	if err := d.while(ctx, active, func() string { return d.progress("no relay at work") }); err != nil {
		return err
	}
	d.down = time.Since(d.killedAt)
	d.say("The new relay, pid %d, took over %s later: the dead one's lease had to end.", d.relay.pid(), seconds(d.down))
	return nil
}

// awaitMoment returns when a POST to the slow webhook has just come: its answer
// takes longer than a kill.
func (d *demo) awaitMoment(ctx context.Context, played chan error) error {
	patience, cancel := context.WithTimeoutCause(ctx, killPatience+time.Duration(float64(d.options.events)/d.options.rate*float64(time.Second)),
		errors.New("no POST came to the slow webhook in the middle of the events, to kill the relay at"))
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for d.traffic.Counts().Committed < d.options.events/2 {
		select {
		case err := <-played:
			played <- err // for who waits for the end
			return fmt.Errorf("the sample traffic ended early: %w", errors.Join(err, ctx.Err()))
		case <-d.relay.exited:
			return fmt.Errorf("the relay ended by itself: %w", d.relay.failure())
		case <-patience.Done():
			return context.Cause(patience)
		case <-ticker.C:
			d.live.show(d.progress(""), 2*time.Second)
		}
	}
	select {
	case <-d.slowArrived: // of some time ago
	default:
	}
	select {
	case <-d.slowArrived:
		return nil
	case <-patience.Done():
		return context.Cause(patience)
	}
}

// openQuery counts what is not finished and does not wait for a later retry, nor
// for a receiver that is down. A held delivery waits for the earlier one of its
// conversation that does.
const openQuery = `
WITH d AS MATERIALIZED (
    SELECT webhook_id, ordering_key, status, status = 'pending' AND next_attempt_at > clock_timestamp() + make_interval(secs => $1) AS later
      FROM audit.deliveries
     WHERE webhook_id NOT IN (SELECT webhook_id FROM audit.webhook_health WHERE breaker = 'open')),
waiting AS (SELECT DISTINCT webhook_id, ordering_key FROM d WHERE later)
SELECT (SELECT count(*) FROM audit.events WHERE routing = 'waiting')
     + (SELECT count(*) FROM d WHERE status = 'pending' AND later IS NOT TRUE)
     + (SELECT count(*) FROM d LEFT JOIN waiting w USING (webhook_id, ordering_key) WHERE d.status = 'held' AND w.webhook_id IS NULL)`

// settle waits until nothing is left to do but retries that are due later.
func (d *demo) settle(ctx context.Context) error {
	d.say("All %s events are inserted. What is left: retries, and what they hold back.", grouped(d.options.events))
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		var open int
		if err := d.db.QueryRowContext(ctx, openQuery, demoHorizon.Seconds()).Scan(&open); err != nil {
			return err
		}
		if open == 0 {
			return nil
		}
		if time.Since(d.lastAt) > demoPatience {
			return fmt.Errorf("%d deliveries are neither finished nor wait for a retry, %s after the last event", open, demoPatience)
		}
		d.live.show(fmt.Sprintf("%s  %s deliveries open", d.progress(""), grouped(open)), 3*time.Second)
		select {
		case <-ticker.C:
		case <-d.relay.exited:
			return fmt.Errorf("the relay ended by itself: %w", d.relay.failure())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
