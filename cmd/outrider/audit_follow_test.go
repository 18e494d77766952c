package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// TestFollowUntilCtrlC: what is new is shown while it goes on, a line each, and
// the end is no failure.
func TestFollowUntilCtrlC(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"table", "json", "csv"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			insert(t, db.SQL, "old_event", uuid.New(), "").routed(routedToNobody)
			var out, errs syncBuffer
			a := &app{
				in: strings.NewReader(""), out: &out, err: &errs, now: time.Now, width: func() int { return 0 }, errWidth: func() int { return 0 },
				env: func(name string) string { return map[string]string{"OUTRIDER_DATABASE_URL": db.DSN}[name] },
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan int, 1)
			go func() { ended <- a.run(ctx, []string{"audit", "events", "--follow", "--format", format}) }()
			until(t, "the follower's first look", func() (bool, string) {
				n := query[int](t, db.SQL, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%audit.routed_after%' AND pid <> pg_backend_pid()`)
				return n > 0, errs.String()
			})
			for no := 1; no <= 3; no++ {
				s := insert(t, db.SQL, "message_created", uuid.New(), "")
				s.pos = int64(no) << 20
				s.routed(routedToNobody)
				mustExec(t, db.SQL, `
INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id)
VALUES ($1::bigint, $1::bigint - 1, pg_current_snapshot(), 0, $2, $2, $2, $2, $2, $2, $1::bigint, 1)`, no, s.seq)
				until(t, fmt.Sprintf("line %d", no), func() (bool, string) {
					return strings.Contains(out.String(), s.id.String()), out.String() + errs.String()
				})
			}
			stop()
			if code := <-ended; code != exitDone || errs.String() != "" {
				t.Errorf("exit %d: %s", code, &errs)
			}
			lines := strings.Split(strings.TrimSpace(out.String()), "\n")
			want := 4
			if format == "json" {
				want = 3
				for _, line := range lines {
					var object map[string]any
					if err := json.Unmarshal([]byte(line), &object); err != nil || object["routing"] != "no_subscriber" {
						t.Errorf("%v in %s", err, line)
					}
				}
			}
			if len(lines) != want || strings.Contains(out.String(), "old_event") {
				t.Errorf("%d lines, want %d:\n%s", len(lines), want, &out)
			}
		})
	}
}
