package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// listedRelay is a relay as the list has it.
type listedRelay struct {
	state  string
	shards []int
	tails  bool
	of     map[string]any
}

// relaysListed gives the relays by their ids; 0 is what nobody has.
func relaysListed(t *testing.T, c *cli, args ...string) map[int]listedRelay {
	t.Helper()
	found := map[int]listedRelay{}
	for _, of := range c.objects(append([]string{"relays", "--format", "json"}, args...)...) {
		id, _ := of["relay_id"].(float64)
		l := listedRelay{of: of}
		l.state, _ = of["state"].(string)
		l.tails, _ = of["tails"].(bool)
		numbers, ok := of["shards"].([]any)
		if !ok || of["shard_count"] != float64(len(numbers)) {
			t.Errorf("relay %v has %v shards, %v", id, of["shard_count"], of["shards"])
		}
		for _, n := range numbers {
			number, _ := n.(float64)
			l.shards = append(l.shards, int(number))
		}
		found[int(id)] = l
	}
	return found
}

// awaitRelays waits until the list is as it should be: each relay with its
// state, its number of shards, and whether it tails.
func awaitRelays(t *testing.T, c *cli, what string, want map[int]string, args ...string) map[int]listedRelay {
	t.Helper()
	var found map[int]listedRelay
	until(t, what, func() (bool, string) {
		found = relaysListed(t, c, args...)
		got := map[int]string{}
		for id, l := range found {
			got[id] = fmt.Sprintf("%s %d", l.state, len(l.shards))
			if l.tails {
				got[id] += " tails"
			}
		}
		return fmt.Sprint(got) == fmt.Sprint(want), fmt.Sprint(got)
	})
	return found
}

// TestRelaysTellsHowTheyShare follows relays that come, share, die and go.
func TestRelaysTellsHowTheyShare(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, asRole(t, db, "ops", "outrider_operator"))
	nobody := awaitRelays(t, c, "no relay", map[int]string{0: "unowned 64 tails"})
	if of := nobody[0].of; of["relay_id"] != nil || of["sends"] != nil || of["started_at"] != nil || of["position"] != 0.0 || of["behind"] != 0.0 {
		t.Errorf("without a relay the list has %v", of)
	}

	first := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--relay-name", "host-a")
	alone := awaitRelays(t, c, "one relay", map[int]string{1: "working 64 tails"})
	if of := alone[1].of; of["name"] != "host-a" || of["version"] == nil || fmt.Sprint(of["sends"]) != "true" || of["started_at"] == nil || of["last_sign_at"] == nil || of["ended_at"] != nil || of["ended_by"] != nil {
		t.Errorf("the list has %v", of)
	}

	second := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--relay-name", "host-b")
	both := awaitRelays(t, c, "two relays", map[int]string{1: "working 32 tails", 2: "working 32"})
	all := slices.Concat(both[1].shards, both[2].shards)
	slices.Sort(all)
	if all = slices.Compact(all); len(all) != relay.ShardCount || all[0] != 0 || all[relay.ShardCount-1] != relay.ShardCount-1 {
		t.Errorf("the shards of both are %v", all)
	}
	first.awaitShare(t, relay.ShardCount/2, true)
	second.awaitShare(t, relay.ShardCount/2, false)
	table := c.ok("relays")
	for _, text := range []string{"RELAY  NAME    VERSION", "STATE", "LAST SIGN OF LIFE", "host-b", "working", "32      true", "32      false"} {
		if !strings.Contains(table, text) {
			t.Errorf("the table has no %q:\n%s", text, table)
		}
	}
	if out := c.ok("relays", "--format", "csv"); !strings.HasPrefix(out, "relay_id,name,version,sends,started_at,state,last_sign_at,shards,shard_count,tails,position,behind,ended_at,ended_by\n1,host-a,") ||
		!strings.Contains(out, fmt.Sprintf("%q,32,true,0,0,,\n", strings.Trim(strings.ReplaceAll(fmt.Sprint(both[1].shards), " ", ","), "[]"))) {
		t.Errorf("as csv:\n%s", out)
	}

	// While the other one is suspended, nobody takes over what a dead one has.
	if err := second.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	first.signal(syscall.SIGKILL)
	awaitRelays(t, c, "a silent relay, and one that is suspended", map[int]string{1: "silent 32 tails", 2: "silent 32"})
	if err := second.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	awaitRelays(t, c, "the take-over", map[int]string{2: "working 64 tails"})
	dead := awaitRelays(t, c, "the dead one among all", map[int]string{1: "fenced 0", 2: "working 64 tails"}, "--all")
	if of := dead[1].of; of["ended_by"] != 2.0 || of["ended_at"] == nil || of["last_sign_at"] != nil || of["position"] != nil {
		t.Errorf("of a dead relay the list has %v", of)
	}
	second.signal(syscall.SIGTERM)
	gone := awaitRelays(t, c, "none", map[int]string{0: "unowned 64 tails", 1: "fenced 0", 2: "stopped 0"}, "--all")
	if of := gone[2].of; of["ended_by"] != nil || of["ended_at"] == nil {
		t.Errorf("of a relay that stopped the list has %v", of)
	}

	run(t, db.SQL, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{}')`)
	third := startProcess(t, db.DSN, "serve", "--allow-unsafe", "--no-send")
	awaitRelays(t, c, "one that only routes", map[int]string{0: "unowned 64", 3: "routes_only 0 tails"})
	until(t, "how far behind nobody's shards are", func() (bool, string) {
		of := relaysListed(t, c)[0].of
		return of["behind"] == 1.0, fmt.Sprint(of)
	})
	third.signal(syscall.SIGTERM)
}

// TestRelaysTellsWhichIsLeaving: one that stops has nothing left but attempts.
func TestRelaysTellsWhichIsLeaving(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	receiver := newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusNoContent)
	})
	register(t, db.SQL, 1, receiver.URL, func(s *domain.Settings) { s.Timeout = 30 * time.Second })
	first := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	run(t, db.SQL, insertOne)
	<-arrived
	second := startProcess(t, db.DSN, "serve", "--allow-unsafe")
	awaitRelays(t, c, "both", map[int]string{1: "working 32 tails", 2: "working 32"})
	if err := first.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitRelays(t, c, "the other one with all", map[int]string{1: "leaving 0", 2: "working 64 tails"})
	close(release)
	<-first.done
	awaitRelays(t, c, "the end of the first", map[int]string{2: "working 64 tails"})
	second.signal(syscall.SIGTERM)
	if got := query[string](t, db.SQL, `SELECT string_agg(outcome, ' ') FROM audit.attempts`); got != "succeeded" {
		t.Errorf("attempts: %s", got)
	}
}

func TestRelaysUsage(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	newCLI(t, asRole(t, db, "support", "outrider_auditor")).fails(exitFailed, []string{"lacks rights", "outrider_operator"}, "relays")
	c := newCLI(t, "")
	c.fails(exitUsage, []string{`unexpected argument "all"`, "database_url is missing", `--format: "xml" is none of table, json, csv`}, "relays", "all", "--format", "xml")
}
