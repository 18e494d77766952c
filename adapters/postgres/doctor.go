package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Health is the state of what a check looked at.
type Health string

// The states, from the best to the worst; Unseen could not be looked at.
const (
	Healthy Health = "ok"
	Note    Health = "note"    // to be known, nothing to be done now
	Unseen  Health = "unseen"  // a right is missing, or the answer did not come
	Warning Health = "warning" // it works, and may soon not
	Problem Health = "problem" // it does not work, or loses something
)

// Finding is what a check found. Advice says what mends it, with the command
// where there is one; it is empty where nothing is to be done.
type Finding struct {
	Check  string
	Health Health
	Found  string
	Advice string
}

// DoctorConfig are the settings of an examination. Zero values take the
// defaults named.
type DoctorConfig struct {
	// DSN is the database URL in use, for the names in findings.
	DSN string
	// Release is this binary's version.
	Release string
	// Timeout bounds each check.
	Timeout time.Duration
	// Rows is how many rows below the tail's position are searched for those
	// that it has passed over.
	Rows int
	// LongTransaction is how long a transaction may be open. Default 10 min:
	// no statement of a chat system should take that.
	LongTransaction time.Duration
	// PinnedWAL is how many bytes of WAL a slot may hold back. Default 4 GiB.
	PinnedWAL int64
	// Now is this machine's clock. Default time.Now.
	Now func() time.Time
}

func (c *DoctorConfig) setDefaults() {
	if c.LongTransaction == 0 {
		c.LongTransaction = 10 * time.Minute
	}
	if c.PinnedWAL == 0 {
		c.PinnedWAL = 4 << 30
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// mostSilent is after how many checks without an answer the others are spared.
const mostSilent = 2

// Examine looks at a database as its user, and writes nothing: every statement
// runs in a transaction that is READ ONLY. It ends, whatever the server does:
// each check is given up after its timeout, and after two of them the rest.
// What the user may not see is Unseen. The findings come in the order of the
// checks.
func Examine(ctx context.Context, db *sql.DB, config DoctorConfig) []Finding {
	config.setDefaults()
	p := patient{db: db, config: config, at: placeOf(config.DSN)}
	var findings []Finding
	silent := 0
	for _, c := range checks {
		if ctx.Err() != nil {
			break
		}
		if silent >= mostSilent {
			findings = append(findings, Finding{c.name, Unseen, "was not looked at, since the server did not answer before", ""})
			continue
		}
		if c.schema && !p.installed {
			continue // the check of the version says so
		}
		if c.role == operatorRole && p.older {
			findings = append(findings, Finding{c.name, Unseen, "takes the schema of this binary", migrateCommand})
			continue
		}
		if c.role != "" && !p.may[c.role] {
			findings = append(findings, Finding{c.name, Unseen, "takes the role " + c.role, p.at.grantOf(c.role)})
			continue
		}
		after, err := p.examine(ctx, c)
		findings = append(findings, after.findings...)
		after.findings = nil
		p = after
		if err == nil {
			continue
		}
		f := p.failed(c, err)
		if f.Health == Unseen && errors.Is(err, context.DeadlineExceeded) {
			silent++
		}
		findings = append(findings, f)
		if c.first {
			break // without a connection nothing else can be looked at
		}
	}
	return findings
}

// check is one of the things that are looked at.
type check struct {
	name string
	// first is the one without which no other can be made.
	first bool
	// schema says that it reads what migrations make, role which rights it
	// takes for that.
	schema bool
	role   string
	// extra is the time that it takes by its nature.
	extra time.Duration
	look  func(context.Context, *patient) error
}

// The roles that checks take.
const (
	operatorRole = "outrider_operator"
	auditorRole  = "outrider_auditor"
	relayRole    = "outrider_relay"
	webRole      = "outrider_web"
)

var checks = []check{
	{name: "connection", first: true, look: lookAtConnection},
	{name: "version", look: lookAtVersion},
	{name: "rights", look: lookAtRights},
	{name: "sessions", look: lookAtSessions},
	{name: "read-write", look: lookAtStandby},
	{name: "identity", schema: true, role: operatorRole, look: lookAtIdentity},
	{name: "relay", schema: true, role: operatorRole, look: lookAtRelay},
	{name: "tail", schema: true, role: auditorRole, extra: pace, look: lookAtTail},
	{name: "passed over", schema: true, role: operatorRole, look: lookAtPassed},
	{name: "sending", schema: true, role: operatorRole, look: lookAtSending},
	{name: "open attempts", schema: true, role: operatorRole, look: lookAtAttempts},
	{name: "due", schema: true, role: operatorRole, look: lookAtDue},
	{name: "receivers", schema: true, role: operatorRole, look: lookAtReceivers},
	{name: "partitions", schema: true, role: operatorRole, look: lookAtPartitions},
	{name: "net", schema: true, role: operatorRole, look: lookAtNet},
	{name: "clock", look: lookAtClock},
	{name: "relay's clock", schema: true, role: operatorRole, look: lookAtRelaysClock},
	{name: "settings", look: lookAtSettings},
	{name: "connections", look: lookAtConnections},
	{name: "transactions", look: lookAtTransactions},
	{name: "slots", look: lookAtSlots},
	{name: "notifications", look: lookAtNotifications},
}

// patient is the database that is examined, and what is known of it so far.
type patient struct {
	db       *sql.DB
	config   DoctorConfig
	at       place
	check    string
	findings []Finding

	user      string
	installed bool            // it has our schemas
	older     bool            // they lack what checks read
	may       map[string]bool // roles whose rights the user has
	standby   bool
	foreign   bool // it has another identity than its history
	alive     bool // a relay is at work, and gives signs of life
	sends     bool // one that makes POSTs is
}

// add notes what the present check found.
func (p *patient) add(h Health, found, advice string) {
	p.findings = append(p.findings, Finding{p.check, h, found, advice})
}

// patience is what a check that was told to stop still gets: then it is left
// to itself, since a dead network may never let it go.
const patience = time.Second

// examine makes one check, on a copy: what is left to itself may still write
// to its own.
func (p *patient) examine(ctx context.Context, c check) (patient, error) {
	limit := p.config.Timeout + c.extra
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		patient patient
		err     error
	}
	done := make(chan result, 1)
	mine := *p
	mine.check = c.name
	go func() {
		err := c.look(ctx, &mine)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = ctx.Err() // whatever the driver made of it
		}
		done <- result{mine, err}
	}()
	left := time.NewTimer(limit + patience)
	defer left.Stop()
	select {
	case r := <-done:
		return r.patient, r.err
	case <-left.C:
		return *p, context.DeadlineExceeded
	}
}

// failed turns an error of a check into a finding.
func (p *patient) failed(c check, err error) Finding {
	f := Finding{Check: c.name, Health: Problem, Found: err.Error()}
	explained, isExplained := errors.AsType[*Error](ExplainAt(p.config.DSN, err))
	if isExplained {
		f.Found, f.Advice = explained.Problem, explained.Advice
	}
	switch {
	case c.first:
	case errors.Is(err, context.DeadlineExceeded):
		f.Health, f.Found = Unseen, fmt.Sprintf("the server gave no answer within %s", ago(p.config.Timeout+c.extra))
		f.Advice = "is it overloaded? Give it more time: --timeout 30s"
	case isDenied(err):
		f.Health, f.Advice = Unseen, p.at.grantOf(operatorRole)
	case isUndefined(err):
		f.Health = Unseen // an older schema: the check of the version says so
	}
	return f
}

// grantOf is the advice that gives the user the rights of a role.
func (p place) grantOf(role string) string {
	return fmt.Sprintf("as an administrator: GRANT %s TO %s", role, roleName(p.user))
}

// doctorSettings bound a check on the server too, and see to it that what it
// reads is found by indexes, row by row: to join or to sort as a whole would read
// the history. $1 and $2 are in milliseconds.
const doctorSettings = `
SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true), set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true),
       set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)`

// reading runs what reads, in one snapshot.
func (p *patient) reading(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := p.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	// The context ends first; a lock that does not come is worth its own word.
	statement, lock := (p.config.Timeout + patience).Milliseconds(), (p.config.Timeout / 2).Milliseconds()
	if _, err := tx.ExecContext(ctx, doctorSettings, strconv.FormatInt(statement, 10), strconv.FormatInt(lock, 10)); err != nil {
		return err
	}
	return do(tx)
}

// row reads one row in a snapshot of its own.
func (p *patient) row(ctx context.Context, query string, args []any, dest ...any) error {
	return p.reading(ctx, func(tx *sql.Tx) error { return tx.QueryRowContext(ctx, query, args...).Scan(dest...) })
}

// ago is a duration for people: 350ms, 2.4s, 3m10s, 10m, 5h2m, 3 days.
func ago(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < 10*time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour && d.Round(time.Second)%time.Minute != 0:
		return d.Round(time.Second).String()
	case d < 2*day:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	default:
		return fmt.Sprintf("%d days", d/day)
	}
}

// counted is "1 row" or "1,204 rows".
func counted[N ~int | ~int64](n N, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(int64(n)) + " " + several
}

// countedUpTo is counted for a bounded count.
func countedUpTo(c Count, one, several string) string {
	if c.More {
		return c.String() + " " + several
	}
	return counted(c.N, one, several)
}
