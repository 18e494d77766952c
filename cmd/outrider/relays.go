package main

import (
	"database/sql"

	"github.com/spf13/cobra"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (a *app) relaysCommand() *cobra.Command {
	var format string
	var all bool
	cmd := &cobra.Command{
		Use:     "relays",
		Short:   "List the relays of the database, and what each has of the work",
		GroupID: groupRun,
		Long: `List the relays of the database: how each is, which of the 64 shards of webhooks it
has, whether it tails, and how many batches its shards are behind. A webhook is in the
shard of its id modulo 64.

  working      has a part of the work
  waiting      has nothing: it has just begun, or others have all
  routes_only  makes no POST (--no-send)
  leaving      stops: it takes nothing any more, and finishes its attempts
  silent       gave no sign of life for 2 s, and begins no POST; after 3 s the
               others take what it has
  unowned      is no relay: what nobody has, told last

--all lists those too that ended within a day: stopped in an orderly way, or fenced since
they gave no sign of life, by another relay, or by retention or an erasure after 10 s.

It takes a user with the role outrider_operator. "outrider doctor" says what is wrong.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().BoolVar(&all, "all", false, "also those that ended within a day")
	listFormat(cmd.Flags(), &format)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conf, c := a.check(cmd)
		c.none(args)
		if err := c.err(); err != nil {
			return err
		}
		return a.withDatabase(conf, func(db *sql.DB) error {
			relays, err := postgres.ListRelays(cmd.Context(), db, all)
			if err != nil {
				return err
			}
			return writeList(a, format, relayColumns, relays)
		})
	}
	return cmd
}

var relayTints = map[string]tint{
	string(audit.RelayWorking): good,
	string(audit.RelayWaiting): waiting, string(audit.RelayRoutesOnly): waiting, string(audit.RelayLeaving): waiting,
	string(audit.RelaySilent): bad, string(audit.RelayNone): bad, string(audit.RelayFenced): bad,
	string(audit.RelayStopped): faint,
}

var relayColumns = []column[audit.Relay]{
	{name: "relay_id", value: func(r *audit.Relay) any { return orNil(r.ID) }, shown: "relay"},
	{name: "name", value: func(r *audit.Relay) any { return orNil(r.Name) }, shown: "name", flexible: true},
	{name: "version", value: func(r *audit.Relay) any { return orNil(r.Version) }, shown: "version", flexible: true},
	{name: "sends", value: func(r *audit.Relay) any {
		if r.ID == 0 {
			return nil
		}
		return r.Sends
	}},
	{name: "started_at", value: func(r *audit.Relay) any { return orNever(r.StartedAt) }, shown: "started"},
	{name: "state", value: func(r *audit.Relay) any { return string(r.State) }, shown: "state", tint: func(text string) tint { return relayTints[text] }},
	{name: "last_sign_at", value: func(r *audit.Relay) any { return orNever(r.LastSignAt) }, shown: "last sign of life"},
	{name: "shards", value: func(r *audit.Relay) any { return r.ShardNumbers() }},
	{name: "shard_count", value: func(r *audit.Relay) any { return len(r.ShardNumbers()) }, shown: "shards"},
	{name: "tails", value: func(r *audit.Relay) any { return r.Tails }, shown: "tails"},
	{name: "position", value: func(r *audit.Relay) any { return ofShards(r, r.Position) }},
	{name: "behind", value: func(r *audit.Relay) any { return ofShards(r, r.Behind) }, shown: "behind"},
	{name: "ended_at", value: func(r *audit.Relay) any { return orNever(r.EndedAt) }, shown: "ended"},
	{name: "ended_by", value: func(r *audit.Relay) any { return orNil(r.EndedBy) }, shown: "by"},
}

// ofShards is nil where a relay has none.
func ofShards(r *audit.Relay, batches int64) any {
	if r.Shards == 0 {
		return nil
	}
	return batches
}
