package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// soundServer has the settings of a server for production.
func soundServer(t *testing.T) *pgtest.DB {
	t.Helper()
	return pgtest.NewOn(t, pgtest.NewServer(t, map[string]string{"fsync": "on", "full_page_writes": "on", "autovacuum": "on"}))
}

// doctorFound gives the worst finding of a check, as JSON tells it.
func doctorFound(t *testing.T, r result, check string) (state, found, advice string) {
	t.Helper()
	worse := map[string]int{"ok": 1, "note": 2, "unseen": 3, "warning": 4, "problem": 5}
	for line := range strings.Lines(r.out) {
		var f struct{ Check, State, Found, Advice string }
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if f.Check == check && worse[f.State] > worse[state] {
			state, found, advice = f.State, f.Found, f.Advice
		}
	}
	return state, found, advice
}

// TestDoctorSeesARelayWorkStopAndDie follows one relay: not there, at work,
// with --no-send, killed, stopped.
func TestDoctorSeesARelayWorkStopAndDie(t *testing.T) {
	t.Parallel()
	db := soundServer(t)
	operator := newCLI(t, asRole(t, db, "ops", "outrider_operator"))
	look := func(what string, code int, check, state, text string) {
		t.Helper()
		until(t, what, func() (bool, string) {
			r := operator.run("doctor", "--format", "json", "--timeout", "30s")
			gotState, found, advice := doctorFound(t, r, check)
			return r.code == code && gotState == state && strings.Contains(found+" → "+advice, text), fmt.Sprintf("exit %d\n%s%s", r.code, r.out, r.err)
		})
	}
	look("no relay", exitFailed, "relay", "problem", "no relay has ever worked")

	receiver := newCatcher(t, answer204)
	register(t, db.SQL, 1, receiver.URL, nil)
	p := startProcess(t, db.DSN, "serve", "--relay-name", "host-a")
	mustExec(t, db.SQL, insertOne)
	awaitSucceeded(t, db.SQL, 1)
	look("a relay at work", exitDone, "relay", "ok", "with 64 shards and the tail, last sign of life")
	look("its name", exitDone, "relay", "ok", "relay 1 (host-a, ")
	look("what it sent", exitDone, "sending", "ok", "the last attempt began")
	p.signal(syscall.SIGTERM)
	look("a stopped relay", exitFailed, "relay", "problem", "stopped in an orderly way")

	mustExec(t, db.SQL, insertOne)
	look("an event that waits", exitFailed, "tail", "problem", "no relay is at work")
	silent := startProcess(t, db.DSN, "serve", "--no-send", "--relay-name", "host-b")
	until(t, "the routing", func() (bool, string) {
		n := query[int](t, db.SQL, `SELECT count(*) FROM relay.batches WHERE no = 2`)
		return n == 1, fmt.Sprint(n)
	})
	mustExec(t, db.SQL, `UPDATE relay.batches SET at = at - interval '1 minute' WHERE no = 2`) // so long ago
	look("a relay that sends nothing", exitFailed, "sending", "problem", "--no-send")
	look("that it is alive", exitFailed, "relay", "problem", "with the tail, last sign of life")
	beside := startProcess(t, db.DSN, "serve", "--relay-name", "host-c")
	look("one that sends beside it", exitDone, "relay", "ok", "with 64 shards, last sign of life")
	look("what it sends", exitDone, "sending", "ok", "no routed delivery waits to be begun")
	beside.signal(syscall.SIGTERM)
	mustExec(t, db.SQL, insertOne)
	until(t, "the routing", func() (bool, string) {
		n := query[int](t, db.SQL, `SELECT count(*) FROM relay.batches WHERE no = 3`)
		return n == 1, fmt.Sprint(n)
	})
	silent.signal(syscall.SIGKILL)
	mustExec(t, db.SQL, `UPDATE relay.heartbeats SET at = at - interval '1 minute'`) // so long ago
	look("a killed relay", exitFailed, "relay", "problem", "was killed or is cut off")
	look("the delivery that waits", exitFailed, "sending", "warning", "wait for a relay")
}

func TestDoctorOutput(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t) // whose settings are those of tests
	c := newCLI(t, db.DSN)
	r := c.run("doctor")
	for _, text := range []string{
		"✓ connection", "✗ settings       fsync = off", "→ ALTER SYSTEM SET fsync = on", "! settings       autovacuum = off", "i clone", "\n2 problems (relay, settings), 2 warnings (settings), 2 notes (identity, clone); ", " in order\n",
	} {
		if !strings.Contains(r.out, text) {
			t.Errorf("it does not show %q:\n%s", text, r.out)
		}
	}
	if r.code != exitFailed || r.err != "outrider: doctor found 2 problems\n" || strings.Contains(r.out, "\x1b[") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	c.width = 120
	if r := c.run("doctor"); !strings.Contains(r.out, "\x1b[31m✗") {
		t.Errorf("a problem has no colour:\n%s", r.out)
	}
	c.width = 0

	r = c.run("doctor", "--format", "json")
	var first map[string]any
	line, _, _ := strings.Cut(r.out, "\n")
	if err := json.Unmarshal([]byte(line), &first); err != nil || members(first) != "advice check found state" || first["state"] != "ok" || first["advice"] != nil {
		t.Errorf("%v: %s", err, line)
	}
	if r.code != exitFailed {
		t.Errorf("exit %d", r.code)
	}
	if out := c.run("doctor", "--format", "csv").out; !strings.HasPrefix(out, "check,state,found,advice\nconnection,ok,") {
		t.Errorf("csv begins %.80s", out)
	}

	auditor := newCLI(t, asRole(t, db, "support", "outrider_auditor")).run("doctor")
	if !strings.Contains(auditor.out, "? identity, relay, passed over, sending, open attempts, due, receivers, partitions, net, relay's clock  takes the role outrider_operator") ||
		!strings.Contains(auditor.out, "not all could be looked at") {
		t.Errorf("an auditor sees\n%s", auditor.out)
	}

	c.fails(exitUsage, []string{`--timeout: "1ms" is too short`, `--rows: "0" is not a number of 1 or more`, `unexpected argument "now"`}, "doctor", "now", "--timeout", "1ms", "--rows", "0")
	newCLI(t, "").fails(exitUsage, []string{"database_url is missing"}, "doctor")

	nowhere := newCLI(t, "postgres://u:hunter2hunter2@127.0.0.1:1/d").run("doctor")
	if nowhere.code != exitFailed || !strings.Contains(nowhere.out, "✗ connection  PostgreSQL at 127.0.0.1:1 refuses connections") || strings.Contains(nowhere.out+nowhere.err, "hunter2") {
		t.Errorf("exit %d: %s%s", nowhere.code, nowhere.out, nowhere.err)
	}
}
