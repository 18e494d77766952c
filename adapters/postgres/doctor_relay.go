package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lib/pq"

	"github.com/outrider-relay/outrider/relay"
)

// signOfLife is how old the last sign of life of a relay at work may be, and how
// long a part of the work may belong to nobody: a relay gives a sign each half
// second, and others take over what it had after three.
const signOfLife = 10 * time.Second

const startServe = "start one: outrider serve"

const connectedQuery = `
SELECT (SELECT extract(epoch FROM clock_timestamp() - max(s.since)) FROM relay.slots s),
       ARRAY(SELECT DISTINCT substr(a.application_name, 10) FROM pg_stat_activity a WHERE a.datname = current_database() AND a.application_name LIKE 'outrider %' ORDER BY 1)`

// crew is who works on the database.
type crew struct {
	relays  []seenRelay // that nobody has fenced
	unowned seenRelay
	// changed is for how long nothing was taken or given up; never says that
	// nothing ever was.
	changed time.Duration
	never   bool
	// strangers are connections of relays that are none of these.
	strangers []string
}

func readCrew(ctx context.Context, tx *sql.Tx) (c crew, err error) {
	if c.relays, c.unowned, err = readRelays(ctx, tx); err != nil {
		return c, err
	}
	var changed sql.NullFloat64
	err = tx.QueryRowContext(ctx, connectedQuery).Scan(&changed, pq.Array(&c.strangers))
	c.changed, c.never = fromSeconds(changed.Float64), !changed.Valid
	c.strangers = slices.DeleteFunc(c.strangers, func(name string) bool {
		return slices.ContainsFunc(c.relays, func(r seenRelay) bool { return r.Name == name })
	})
	return c, err
}

// which gives the relays of which something is so.
func (c *crew) which(is func(*seenRelay) bool) []*seenRelay {
	var found []*seenRelay
	for i := range c.relays {
		if is(&c.relays[i]) {
			found = append(found, &c.relays[i])
		}
	}
	return found
}

func lookAtRelay(ctx context.Context, p *patient) error {
	var c crew
	if err := p.reading(ctx, func(tx *sql.Tx) (err error) { c, err = readCrew(ctx, tx); return err }); err != nil {
		return err
	}
	dead := c.which((*seenRelay).dead)
	leaving := c.which(func(r *seenRelay) bool { return !r.dead() && r.leaving })
	working := c.which(func(r *seenRelay) bool { return !r.dead() && !r.leaving })
	senders := slices.DeleteFunc(slices.Clone(working), func(r *seenRelay) bool { return !r.Sends })
	p.alive, p.sends = len(working) > 0, len(senders) > 0

	also := ""
	if len(working) > 0 || len(dead) > 0 {
		for _, r := range leaving {
			also += "; " + r.who() + " is stopping"
		}
	}
	if len(c.strangers) > 0 {
		also += "; connected too: " + strings.Join(c.strangers, ", ")
	}
	switch {
	case len(senders) > 0:
		p.add(Healthy, atWork(working)+also, "")
	case len(working) > 0:
		p.add(Problem, atWork(working)+"; nothing is sent, since no relay runs without --no-send"+also, "if that is not meant so, as while moving over: "+startServe)
	case len(dead) > 0:
	case len(leaving) > 0:
		p.add(Problem, fmt.Sprintf("no relay is at work: %s is stopping%s", leaving[0].who(), also), startServe)
	case c.never:
		p.add(Problem, "no relay has ever worked on this database"+also, startServe)
	default:
		p.add(Problem, fmt.Sprintf("no relay is at work: the last one stopped in an orderly way %s ago%s", ago(c.changed), also), startServe)
	}
	advice := "the other relays' logs tell why they cannot take it over"
	if len(working) == 0 {
		advice = startServe
	} else {
		also = ""
	}
	for _, r := range dead {
		p.add(Problem, r.died()+also, advice)
		also = ""
	}
	p.lookAtUnowned(&c.unowned, working, senders)
	return nil
}

// lookAtUnowned tells of what belongs to nobody although a relay is there that
// would take it.
func (p *patient) lookAtUnowned(unowned *seenRelay, working, senders []*seenRelay) {
	const advice = "the relays' logs tell why they do not take that; if they say nothing, stop one of them, and start it again: outrider serve"
	if since := untaken(unowned.tailSince, working); unowned.Tails && since > signOfLife {
		p.add(Problem, fmt.Sprintf("nobody tails, since %s, although a relay is at work: events wait to be routed", ago(since)), advice)
	}
	if since := untaken(unowned.shardsSince, senders); unowned.Shards != 0 && since > signOfLife {
		p.add(Problem, fmt.Sprintf("%s to nobody, since %s, although a relay sends: their webhooks get nothing", counted(relay.Shards(unowned.Shards).Count(), "shard belongs", "shards belong"), ago(since)), advice)
	}
}

// untaken is for how long one of some relays could have taken what nobody has.
func untaken(since time.Duration, takers []*seenRelay) time.Duration {
	there := time.Duration(0)
	for _, taker := range takers {
		there = max(there, taker.age)
	}
	return min(since, there)
}

// dead says that others should have taken its work long ago.
func (r *seenRelay) dead() bool { return r.silence > signOfLife }

func (r *seenRelay) who() string { return fmt.Sprintf("relay %d (%s, %s)", r.ID, r.Name, r.Version) }

// has names a part of the work.
func (r *seenRelay) has() string {
	var parts []string
	if r.Shards != 0 {
		parts = append(parts, counted(relay.Shards(r.Shards).Count(), "shard", "shards"))
	}
	if r.Tails {
		parts = append(parts, "the tail")
	}
	return strings.Join(parts, " and ")
}

func (r *seenRelay) died() string {
	took := "no other took over"
	if has := r.has(); has != "" {
		took += " its " + strings.TrimPrefix(has, "the ")
	}
	if !r.signs {
		return fmt.Sprintf("%s began %s ago and gave no sign of life since: it is dead or cut off, and %s", r.who(), ago(r.silence), took)
	}
	return fmt.Sprintf("%s gave its last sign of life %s ago: it was killed or is cut off, and %s", r.who(), ago(r.silence), took)
}

// atWork tells who is at work.
func atWork(relays []*seenRelay) string {
	if len(relays) == 1 {
		r := relays[0]
		if r.Shards == 0 && !r.Tails {
			return fmt.Sprintf("%s began %s ago, and takes over what there is%s", r.who(), ago(max(0, r.age)), r.lastSign())
		}
		return fmt.Sprintf("%s is at work since %s with %s%s", r.who(), ago(max(r.shardsSince, r.tailSince)), r.has(), r.lastSign())
	}
	texts := make([]string, len(relays))
	for i, r := range relays {
		has := r.has()
		if has == "" {
			has = "nothing, since others have all"
		}
		texts[i] = r.who() + " with " + has + r.lastSign()
	}
	return fmt.Sprintf("%d relays are at work: %s", len(relays), strings.Join(texts, "; "))
}

func (r *seenRelay) lastSign() string {
	if !r.signs {
		return ""
	}
	return fmt.Sprintf(", last sign of life %s ago", ago(max(0, r.silence)))
}
