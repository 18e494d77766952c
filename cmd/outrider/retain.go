package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
)

// keep is how long something is kept. Where it is not given, it is kept as long
// as the log.
type keep struct {
	given bool
	age   time.Duration // 0 is for ever
}

const day = 24 * time.Hour

func retainSetting(key, what string, shortest time.Duration, of func(*config) *keep) *setting {
	return &setting{
		key: key, usage: "how long " + what + " kept, like 30d, or " + forever,
		set: func(c *config, text string) error {
			kept := of(c)
			*kept = keep{given: true}
			if text == forever {
				return nil
			}
			age, err := parseDuration(text)
			switch {
			case err != nil:
				return fmt.Errorf("%q is not an age; write it like 30d, or %s", text, forever)
			case age < shortest:
				return fmt.Errorf("%s is too short; the shortest is %dd", text, shortest/day)
			}
			kept.age = age
			return nil
		},
	}
}

var (
	retainPayloads  = retainSetting("retain_payloads", "payloads are", day, func(c *config) *keep { return &c.retainPayloads })
	retainResponses = retainSetting("retain_responses", "responses are", day, func(c *config) *keep { return &c.retainResponses })
	// Duplicates are looked up in the log.
	retainLog = retainSetting("retain_log", "the log is", 7*day, func(c *config) *keep { return &c.retainLog })
)

// ages gives how long everything is kept, and what contradicts itself.
func (c *config) ages() (ages postgres.Ages, problems []string) {
	ages.Log = c.retainLog.age
	for _, k := range []struct {
		kept *keep
		age  *time.Duration
		name string
	}{{&c.retainPayloads, &ages.Payloads, retainPayloads.key}, {&c.retainResponses, &ages.Responses, retainResponses.key}} {
		*k.age = k.kept.age
		if !k.kept.given {
			*k.age = ages.Log
		}
		if ages.Log > 0 && (*k.age == 0 || *k.age > ages.Log) {
			problems = append(problems, fmt.Sprintf("%s is longer than %s: nobody finds them without the log", k.name, retainLog.key))
		}
	}
	return ages, problems
}

// retainPatience is how long the command tries to get a lock, and waits for
// deliveries to end.
const (
	retainPatience = 45 * time.Second
	retainPause    = 300 * time.Millisecond
)

func (a *app) retainCommand() *cobra.Command {
	var dryRun bool
	var format string
	cmd := &cobra.Command{
		Use:     "retain",
		Short:   "Erase payloads, responses and the log when they have reached their age",
		GroupID: groupRun,
		Long: `Erase what has reached its age, counted from the insert of its event: payloads,
responses, and the log, each by its own setting. It goes by whole partitions: one is
emptied when all that is in it is older, then its empty table is dropped. Nothing goes
where no age is set.

outrider serve does the same by itself where it has these settings. This command is
for those who would rather do it at a time of their own; it takes no relay, but where
deliveries of such events are open: the relays at work end them first, as expired.
Where none is at work they are left, and said.

It locks only what it erases, and tries again where a long transaction is in the way.
All is on record: audit.retentions. It takes a user with the role outrider_operator.`,
		Example: `  outrider retain --retain-payloads 30d --retain-responses 14d --retain-log 365d --dry-run`,
		Args:    cobra.ArbitraryArgs,
	}
	flags := cmd.Flags()
	retainPayloads.addTo(flags)
	retainResponses.addTo(flags)
	retainLog.addTo(flags)
	flags.BoolVar(&dryRun, "dry-run", false, "only list what would be erased")
	listFormat(flags, &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		ages, problems := conf.ages()
		c.problems = append(c.problems, problems...)
		if len(c.problems) == 0 && ages == (postgres.Ages{}) {
			c.add("everything is kept for ever: give --retain-payloads, --retain-responses or --retain-log")
		}
		if c.given("format") && !dryRun {
			c.add("--format is for --dry-run")
		}
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			if dryRun {
				aged, err := postgres.PlanRetention(cmd.Context(), db, ages)
				if err != nil {
					return err
				}
				return writeList(a, format, agedColumns, aged)
			}
			return a.retain(cmd.Context(), db, ages)
		})
	}
	return cmd
}

var agedColumns = []column[postgres.Aged]{
	{name: "what", value: func(t *postgres.Aged) any { return t.What }, shown: "what"},
	{name: "table", value: func(t *postgres.Aged) any { return t.Table }, shown: "table"},
	{name: "first_seq", value: func(t *postgres.Aged) any { return t.First }, shown: "from seq"},
	{name: "last_seq", value: func(t *postgres.Aged) any { return t.Last }, shown: "to"},
	{name: "rows", value: func(t *postgres.Aged) any { return t.Rows }, shown: "rows, about"},
	{name: "bytes", value: func(t *postgres.Aged) any {
		if t.Bytes < 0 {
			return nil
		}
		return t.Bytes
	}, shown: "bytes"},
	{name: "waits", value: func(t *postgres.Aged) any { return orNil(t.Waits) }, shown: "waits", flexible: true},
}

// retain does all steps, and says each.
func (a *app) retain(ctx context.Context, db *sql.DB, ages postgres.Ages) error {
	steps := 0
	deadline := time.Now().Add(retainPatience)
	for {
		step, idle, err := postgres.Retain(ctx, db, ages)
		late := time.Now().After(deadline)
		switch {
		case errors.Is(err, postgres.ErrHeld) && late:
			return &failure{"not all is done: " + postgres.Holders(ctx, db).Error(), "let them finish, then run this again; what is erased already stays so"}
		case err != nil && !errors.Is(err, postgres.ErrHeld):
			return err
		case err == nil && !idle:
			steps++
			deadline = time.Now().Add(retainPatience)
			fmt.Fprintln(a.out, step)
			continue
		case err == nil && step == "":
			if steps == 0 {
				fmt.Fprintln(a.out, "Nothing has reached its age.")
			}
			return nil
		case err == nil && (late || strings.Contains(step, "no relay is at work")):
			return &failure{"not all is done: " + step, "start outrider serve where none runs: it ends them; then run this again"}
		}
		select {
		case <-time.After(retainPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
