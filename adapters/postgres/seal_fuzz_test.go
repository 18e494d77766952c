package postgres_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// FuzzCanonicalEntry writes entries of odd content and checks that the bytes
// that are hashed are the same whether they are made before the write, from
// what is read back, or by SQL.
func FuzzCanonicalEntry(f *testing.F) {
	db := pgtest.New(f).SQL
	f.Add(int64(1), int64(0), int64(7), int64(1_700_000_000_123_456), int32(1), "routed", "plain", "routed", []byte("0123456789abcdef"), []byte(nil))
	f.Add(int64(math.MaxInt64-1), int64(math.MinInt64), int64(-1), int64(0), int32(1<<20-1), "", "", "", []byte(nil), []byte("0123456789abcdef"))
	f.Add(int64(-99_999), int64(5), int64(0), int64(-1), int32(0), "attempt_failed", "quotes \" \\ \u0000 \u2028 \U0001F98A \ufffd", "a\x01b", make([]byte, 16), bytes.Repeat([]byte{255}, 16))
	f.Add(int64(100_000), int64(5), int64(0), int64(999_999), int32(3), "dead", strings.Repeat("long", 50_000), "ü", []byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, seq, webhook, account, micros int64, ordinal int32, kind, content, routing string, event, delivery []byte) {
		ordinal &= 1<<20 - 1
		seq = min(seq, math.MaxInt64-1)   // the query's bound
		micros %= 200_000_000_000_000_000 // PostgreSQL's years 4,300 BC to 8,300
		clean := func(text string) string { return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "") }
		quoted, err := json.Marshal(clean(content))
		if err != nil {
			t.Fatal(err)
		}
		data := []byte(" {\"a\" :" + string(quoted) + ",\n\"a\":\"\\u0000\"}")
		entry := domain.SealedEntry{
			EventSeq: seq, WebhookID: webhook, ReplayID: ^webhook, AccountID: account, Ordinal: ordinal, Writer: account / 2, At: micros, Version: ordinal / 2,
			Type: []byte(clean(kind)), Data: data,
		}
		var routingArg, eventArg, deliveryArg any
		if routing != "" {
			entry.Routing = []byte(clean(routing))
			routingArg = string(entry.Routing)
		}
		id := func(raw []byte) (any, []byte) {
			parsed, err := uuid.FromBytes(raw)
			if err != nil {
				return nil, nil
			}
			return parsed.String(), parsed[:]
		}
		eventArg, entry.EventID = id(event)
		deliveryArg, entry.Delivery = id(delivery)

		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = tx.Rollback() }()
		_, err = tx.ExecContext(t.Context(), `
INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id)
VALUES ($1, $2, $3, $4, $5, $6, timestamptz '2000-01-01 00:00:00+00' + make_interval(secs => 0) + ($7::bigint / 1000000) * interval '1 second' + ($7::bigint % 1000000) * interval '1 microsecond', $8, $9, $10, $11, $12, $13)`,
			seq, webhook, entry.ReplayID, account, 77<<20|int64(ordinal), entry.Writer, micros, entry.Version, string(entry.Type), string(data), routingArg, eventArg, deliveryArg)
		if err != nil {
			t.Fatal(err)
		}
		want := entry.AppendCanonical(nil)
		bySQL, byGo := canonicalBytes(t.Context(), t, tx)
		if !bytes.Equal(bySQL, want) {
			t.Errorf("SQL gives\n%x, want\n%x", bySQL, want)
		}
		if digest := sha256.Sum256(want); byGo != digest {
			t.Errorf("what is read back digests to %x, want %x", byGo, digest)
		}
	})
}

// canonicalBytes reads the only entry: its bytes by SQL, and the digest of what
// a verification makes of it.
func canonicalBytes(ctx context.Context, t *testing.T, tx *sql.Tx) ([]byte, domain.Hash) {
	t.Helper()
	var content, raw []byte
	if err := tx.QueryRowContext(ctx, `
SELECT audit.canonical_entry(l.event_seq, l.webhook_id, l.replay_id, l.account_id, (l.pos & 1048575)::integer, l.writer, l.at, l.version, l.type, l.data, l.routing, l.event_id, l.delivery_id)
  FROM relay.log l`).Scan(&content); err != nil {
		t.Fatal(err)
	}
	if err := tx.QueryRowContext(ctx, postgres.EntriesQuery, int64(math.MinInt64), int64(math.MaxInt64), int64(0), int64(math.MaxInt64)).Scan(&raw); err != nil {
		t.Fatal(err)
	}
	digest, err := postgres.DigestRow(raw)
	if err != nil {
		t.Fatal(err)
	}
	return content, digest
}

// Times that a clock gives are hashed as PostgreSQL keeps them.
func TestTimesAreSealedAsTheyAreKept(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, nanoseconds := range []int{0, 1, 499, 500, 999, 1500, 999_999_999} {
		log := postgres.NewLog(db.SQL)
		at := time.Date(2026, 7, 1, 12, 0, 0, nanoseconds, time.FixedZone("elsewhere", 3600))
		relayID, err := postgres.NewLeases(db.SQL).Register(t.Context(), "test", "test", true)
		if err != nil {
			t.Fatal(err)
		}
		key := domain.DeliveryKey{EventSeq: 1 + int64(nanoseconds), WebhookID: 1}
		if _, err := log.Record(t.Context(), relayID, []relay.Change{{Key: key, AccountID: 1, First: 1, Entries: []domain.Entry{{Type: domain.TypeHeld, At: at, Data: []byte("{}")}}}}); err != nil {
			t.Fatal(err)
		}
	}
	found, err := postgres.NewAudit(db.SQL).Verify(t.Context(), postgres.VerifyRange{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if found.Entries != 7 || found.Found != 0 {
		t.Errorf("of 7 entries %d are verified, with %d flaws: %+v", found.Entries, found.Found, found.Flaws)
	}
}
