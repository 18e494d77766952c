package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// TestExportEqualsTheList: with each filter, on standard output and in a file,
// and gone on with from the middle.
func TestExportEqualsTheList(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/a")
	busy(t, db, 12)
	dir := t.TempDir()
	for _, list := range []string{"events", "deliveries", "attempts", "changes"} {
		for _, filter := range [][]string{nil, {"--webhook", "1"}, {"--account", "1", "--since", "2026-07-01T12:00:00Z"}} {
			shown := c.ok(append([]string{"audit", list, "--format", "json", "--limit", "10000"}, filter...)...)
			if shown == "" {
				t.Fatalf("audit %s %v lists nothing", list, filter)
			}
			r := c.run(append([]string{"audit", "export", list}, filter...)...)
			if r.code != exitDone || r.out != shown || !strings.Contains(r.err, " rows in ") {
				t.Errorf("audit export %s %v: exit %d, %s\n%s\nwant\n%s", list, filter, r.code, r.err, r.out, shown)
			}
			file := filepath.Join(dir, list)
			c.ok(append([]string{"audit", "export", list, "--output", file}, filter...)...)
			if got := readFile(t, file); got != shown {
				t.Errorf("the file of audit export %s %v is\n%s\nwant\n%s", list, filter, got, shown)
			}
			page := c.run(append([]string{"audit", list, "--format", "json", "--limit", "1"}, filter...)...)
			_, cursor, more := strings.Cut(strings.TrimSpace(page.err), "--after ")
			if !more {
				continue
			}
			// As an interrupted one leaves it.
			if err := os.WriteFile(file+partial, []byte(page.out), 0o600); err != nil {
				t.Fatal(err)
			}
			c.ok(append([]string{"audit", "export", list, "--output", file, "--after", cursor}, filter...)...)
			if got := readFile(t, file); got != shown {
				t.Errorf("the file of audit export %s %v, gone on with, is\n%s\nwant\n%s", list, filter, got, shown)
			}
			if _, err := os.Stat(file + partial); err == nil {
				t.Errorf("%s is left", file+partial)
			}
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestExportTimeline: each entry about a chat event comes once, also where its
// id came twice.
func TestExportTimeline(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	ids := busy(t, db, 4)
	again := insert(t, db.SQL, "message_created", ids[0], "")
	again.routed(domain.Routed{Routing: domain.Routing{Kind: domain.RoutingDuplicate}, EventName: "message_created", DuplicateOf: 1})
	insert(t, db.SQL, "message_created", uuid.New(), "")

	var got, want []string
	for _, entry := range c.objects("audit", "export", "timeline") {
		if members(entry) != "account_id at data delivery_id event_id seq stream stream_id type version" {
			t.Fatalf("an entry is %v", entry)
		}
		text, err := json.Marshal([]any{entry["seq"], entry["type"], entry["stream_id"]})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(text))
	}
	rows, err := db.SQL.QueryContext(t.Context(), `
SELECT json_build_array(seq, type, stream_id)::jsonb::text FROM audit.timeline WHERE seq IS NOT NULL ORDER BY seq >> 20 DESC, seq`) // the story numbers entries by event
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		want = append(want, strings.ReplaceAll(text, ", ", ","))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		t.Errorf("the timeline is\n%v\nwant\n%v", got, want)
	}
	if n := len(c.objects("audit", "export", "timeline", "--event-id", ids[1].String())); n != 6 {
		t.Errorf("one event has %d entries, want 6", n)
	}
}

// TestExportThatFails leaves no file under the name, and says how to go on.
func TestExportThatFails(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	busy(t, db, 2)
	file := filepath.Join(t.TempDir(), "events.jsonl")
	cursor := audit.Cursor{List: audit.EventList, Seq: 2}.String()
	if err := os.WriteFile(file+partial, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustExec(t, db.SQL, `ALTER VIEW audit.events RENAME TO away`)
	r := c.run("audit", "export", "events", "--output", file, "--after", cursor)
	if r.code != exitFailed || !strings.Contains(r.err, "Go on with: --after "+cursor) || !strings.Contains(r.err, file+partial) {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("there is a file, and it is not complete")
	}
	mustExec(t, db.SQL, `ALTER VIEW audit.away RENAME TO events`)
	c.ok("audit", "export", "events", "--output", file, "--after", cursor)
	if got := readFile(t, file); !strings.HasPrefix(got, "{}\n") || strings.Count(got, "\n") != 2 {
		t.Errorf("the file is %q", got)
	}
	c.fails(exitFailed, []string{"--output: "}, "audit", "export", "events", "--output", filepath.Join(file, "x"))
}
