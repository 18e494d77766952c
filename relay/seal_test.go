package relay_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// verify recomputes all seals in Go and in SQL, and gives what each says is
// wrong. heads may be nil.
func (b *bench) verify(heads *domain.Heads) (found postgres.Verification, inGo []postgres.Flaw, inSQL []string) {
	b.t.Helper()
	history := postgres.NewAudit(b.db)
	found, err := history.Verify(b.t.Context(), postgres.VerifyRange{}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	inGo = found.Flaws
	var exported any
	if heads != nil {
		missing, err := history.CompareHeads(b.t.Context(), heads.Heads)
		if err != nil {
			b.t.Fatal(err)
		}
		inGo = append(inGo, missing...)
		text, err := json.Marshal(heads)
		if err != nil {
			b.t.Fatal(err)
		}
		exported = string(text)
	}
	rows, err := b.db.QueryContext(b.t.Context(), `SELECT concat_ws(' ', chain, seal, commit, event_seq, webhook_id, replay_id, version, problem) FROM audit.verify(heads => $1::json)`, exported)
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			b.t.Fatal(err)
		}
		inSQL = append(inSQL, line)
	}
	if err := rows.Err(); err != nil {
		b.t.Fatal(err)
	}
	return found, inGo, inSQL
}

// verifiesClean checks that all entries are sealed, and as they were sealed.
func (b *bench) verifiesClean() postgres.Verification {
	b.t.Helper()
	found, inGo, inSQL := b.verify(nil)
	if len(inGo) != 0 || len(inSQL) != 0 {
		b.t.Errorf("nothing was changed, and something is wrong: %+v; %q", inGo[:min(5, len(inGo))], inSQL[:min(5, len(inSQL))])
	}
	if entries := scan[int64](b, `SELECT count(*) FROM relay.log`); found.Entries != entries {
		b.t.Errorf("%d entries were verified, and there are %d", found.Entries, entries)
	}
	return found
}

// eventful lets a relay write entries of every kind, with replays and changes
// of webhooks, events on both sides of the border between two stretches.
func (b *bench) eventful() {
	b.t.Helper()
	hook, flaky := b.webhook(1, "/hook", nil), b.webhook(1, "/flaky", nil)
	var n atomic.Int64
	b.receiver.on("/flaky", func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1)%3 == 0 {
			w.WriteHeader(http.StatusBadGateway)
			_, _ = w.Write([]byte("no \x00 \xff answer"))
		}
	})
	b.exec(`SELECT setval('outbox.events_seq_seq', 99990)`)
	r := b.start(nil)
	b.publish(1, "c", 1, 20)
	b.publish(2, "nobody", 1, 3)
	b.awaitStatus("succeeded", 40)
	b.command(hook, domain.PauseWebhook{})
	b.publish(1, "d", 1, 3)
	b.awaitStatus("held", 3)
	b.command(hook, domain.EnableWebhook{})
	b.command(flaky, domain.DisableWebhook{Reason: "for the test"})
	b.exec(`SELECT relay.request_replay(relay.plan_replay(account_id => 1, since => now() - interval '1 hour', until => now() + interval '1 hour', webhook_id => $1))`, int64(hook.ID))
	b.eventually("the replay", func() (bool, string) {
		done := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE replay_id = 1 AND status = 'succeeded'`)
		return done >= 20, fmt.Sprint(done)
	})
	b.eventually("an end", func() (bool, string) {
		open := scan[int](b, `SELECT count(*) FROM audit.deliveries WHERE status IN ('pending', 'held')`)
		return open == 0, fmt.Sprint(open)
	})
	r.stop()
	b.recorders(1000)
	b.command(flaky, domain.EnableWebhook{})
	b.recorders(2000)
}

// recorders lets two relays record at the same time, of events from seq on, and
// another one nothing.
func (b *bench) recorders(seq int64) {
	b.t.Helper()
	var writing sync.WaitGroup
	for i := range int64(3) {
		relayID, err := postgres.NewLeases(b.db).Register(b.t.Context(), "recorder", "test", true)
		if err != nil {
			b.t.Fatal(err)
		}
		if i == 2 {
			break
		}
		writing.Go(func() {
			log := postgres.NewLog(b.db)
			for n := range int64(8) {
				held := domain.Entry{Type: domain.TypeHeld, At: time.Now(), Data: []byte("{}")}
				change := relay.Change{Key: domain.DeliveryKey{EventSeq: seq + 100*i + n, WebhookID: 1}, AccountID: 1, First: 1, Entries: []domain.Entry{held, held}}
				if _, err := log.Record(b.t.Context(), relayID, []relay.Change{change}); err != nil {
					b.t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	b.exec(`UPDATE relay.relays SET fenced_at = now() WHERE name = 'recorder'`)
}

// mutation is a change that nobody should be able to make unnoticed.
type mutation struct {
	name, statement string
	// names says that the changed entry must be named.
	names bool
}

// mutations lists those there are; {n} is a random number.
func mutations() []mutation {
	var all []mutation
	update := func(table, order, where string, columns map[string]string, names bool) {
		for _, column := range slices.Sorted(maps.Keys(columns)) {
			value := columns[column]
			all = append(all, mutation{fmt.Sprintf("%s of %s where %s", column, table, where), fmt.Sprintf(
				`WITH one AS (SELECT x.ctid AS place, x.tableoid AS part FROM %[1]s x WHERE %[2]s ORDER BY %[3]s OFFSET {n} %% (SELECT count(*) FROM %[1]s x WHERE %[2]s) LIMIT 1)
UPDATE %[1]s x SET %[4]s = %[5]s FROM one WHERE x.ctid = one.place AND x.tableoid = one.part`, table, where, order, column, value), names})
		}
	}
	const entry = "x.pos"
	update("relay.log", entry, "true", map[string]string{
		"account_id": "x.account_id + 1", "writer": "x.writer + 1", "at": "x.at + interval '1 microsecond'",
		"type": "x.type || ' '", "data": "(x.data::text || ' ')::json", "mark": "x.mark # 1",
		"routing": "CASE WHEN x.routing IS NULL THEN '' END", "event_id": "CASE WHEN x.event_id IS NULL THEN '00000000-0000-0000-0000-000000000000'::uuid END",
		"delivery_id": "CASE WHEN x.delivery_id IS NULL THEN '00000000-0000-0000-0000-000000000000'::uuid END",
		"version":     "x.version + 1000", "webhook_id": "x.webhook_id + 1000", "replay_id": "x.replay_id + 1000", "pos": "x.pos + 100",
	}, true)
	update("relay.log", entry, "true", map[string]string{"event_seq": "x.event_seq + 1000000", "pos": "x.pos - ((x.pos >> 20) << 20)"}, false)
	update("relay.log", entry, "true", map[string]string{"pos": "x.pos + (1000::bigint << 20)"}, false)
	update("relay.log", entry, "x.pos >> 20 IN (SELECT s.commit FROM relay.seals s WHERE s.chain = 'recorder 1' AND s.no > 0)", map[string]string{
		"data": `'{"changed":true}'`, "writer": "x.writer - 1",
	}, true)
	for _, chain := range []string{"tail", "recorder", "recorder 1"} {
		update("relay.seals", "x.no", "x.no > 0 AND x.chain = '"+chain+"'", map[string]string{
			"no": "x.no + 1000", "commit": "x.commit + 1000", "relay_id": "x.relay_id + 1", "at": "x.at + interval '1 microsecond'", "chain": "x.chain || ' 5'",
			"stretches": "ARRAY[x.stretches[1] + 1] || x.stretches[2:]", "entries": "ARRAY[x.entries[1] + 1] || x.entries[2:]",
			"digests": "set_byte(x.digests, 3, get_byte(x.digests, 3) # 1)", "hash": "set_byte(x.hash, 3, get_byte(x.hash, 3) # 1)",
			"links": "CASE WHEN x.links IS NULL THEN ''::bytea END",
		}, false)
		all = append(all, mutation{"the chain " + chain + " dropped, with its entries", fmt.Sprintf(
			`WITH s AS (DELETE FROM relay.seals WHERE chain = '%s' AND no >= {n} %% 2 RETURNING no, commit) DELETE FROM relay.log l USING s WHERE s.no > 0 AND l.pos >> 20 = s.commit`, chain), false})
	}
	update("relay.seals", "x.chain, x.no", "x.no > 0 AND x.links IS NOT NULL", map[string]string{"links": "set_byte(x.links, {n} % octet_length(x.links), (get_byte(x.links, {n} % octet_length(x.links)) + 1) % 256)"}, false)
	update("relay.seals", "x.chain, x.no", "x.no = 0", map[string]string{
		"commit": "x.commit - 1", "at": "x.at - interval '1 day'", "hash": "sha256(x.hash)", "chain": "x.chain || ' 5'", "links": "sha256(x.links)",
	}, false)
	update("relay.webhook_log", "x.account_id, x.version", "true", map[string]string{
		"account_id": "x.account_id + 1000", "version": "x.version + 1000", "webhook_id": "x.webhook_id + 1000", "type": "x.type || ' '", "at": "x.at + interval '1 microsecond'",
		"actor": "'somebody else'", "before": "CASE WHEN x.before IS NULL THEN '{}'::json END", "after": "(x.after::text || ' ')::json",
	}, false)
	update("relay.replay_log", "x.replay_id, x.version", "true", map[string]string{
		"version": "x.version + 1000", "account_id": "coalesce(x.account_id, 0) + 1", "type": "x.type || ' '", "at": "x.at + interval '1 microsecond'",
		"actor": "'somebody else'", "data": "(x.data::text || ' ')::json",
	}, false)
	update("relay.change_seals", "x.no", "x.no > 0", map[string]string{
		"no": "x.no + 1000", "source": "x.source || ' '", "id": "x.id + 1000", "version": "x.version + 1000", "at": "x.at + interval '1 microsecond'",
		"salt": "sha256(x.salt)", "digest": "sha256(x.digest)", "links": "set_byte(x.links, 3, get_byte(x.links, 3) # 1)", "hash": "sha256(x.hash)",
	}, false)
	for _, table := range []struct{ name, order string }{
		{"relay.log", "pos"}, {"relay.seals", "chain, no"}, {"relay.webhook_log", "account_id, version"}, {"relay.replay_log", "replay_id, version"}, {"relay.change_seals", "no"},
	} {
		all = append(all, mutation{"a row of " + table.name + " deleted", fmt.Sprintf(
			`WITH one AS (SELECT ctid AS place, tableoid AS part FROM %[1]s ORDER BY %[2]s OFFSET {n} %% (SELECT count(*) FROM %[1]s) LIMIT 1)
DELETE FROM %[1]s x USING one WHERE x.ctid = one.place AND x.tableoid = one.part`, table.name, table.order), false})
	}
	some := `(SELECT * FROM relay.log ORDER BY pos OFFSET {n} % (SELECT count(*) FROM relay.log) LIMIT 1)`
	return append(all,
		mutation{"an entry added to a commit", `INSERT INTO relay.log SELECT event_seq, webhook_id, 77, account_id, pos + 50, writer, at, version, type, data, routing, event_id, delivery_id, mark FROM ` + some + ` s`, false},
		mutation{"an entry doubled", `INSERT INTO relay.log SELECT event_seq, webhook_id, 77, account_id, pos, writer, at, version, type, data, routing, event_id, delivery_id, mark FROM ` + some + ` s`, false},
		mutation{"an entry added as another commit", `INSERT INTO relay.log SELECT event_seq, webhook_id, 77, account_id, pos + (1000::bigint << 20), writer, at, version, type, data, routing, event_id, delivery_id, mark FROM ` + some + ` s`, false},
		mutation{"an entry added before all", `INSERT INTO relay.log SELECT event_seq, webhook_id, 77, account_id, 5, writer, at, version, type, data, routing, event_id, delivery_id, mark FROM ` + some + ` s`, false},
		mutation{"the places of two entries swapped", `WITH one AS ` + some + `, other AS (SELECT l.* FROM relay.log l, one WHERE l.pos <> one.pos ORDER BY md5(l.pos::text) LIMIT 1)
UPDATE relay.log l SET pos = CASE l.pos WHEN one.pos THEN other.pos ELSE one.pos END FROM one, other WHERE l.pos IN (one.pos, other.pos)`, false},
		mutation{"the contents of two entries swapped", `WITH one AS ` + some + `, other AS (SELECT l.* FROM relay.log l, one WHERE l.data::text <> one.data::text ORDER BY md5(l.pos::text) LIMIT 1)
UPDATE relay.log l SET data = CASE l.pos WHEN one.pos THEN other.data ELSE one.data END, mark = CASE l.pos WHEN one.pos THEN other.mark ELSE one.mark END FROM one, other WHERE l.pos IN (one.pos, other.pos)`, true},
		mutation{"an entry changed and marked anew", `UPDATE relay.log l SET data = '{"changed":true}', mark = ('x' || encode(substring(sha256(audit.canonical_entry(l.event_seq, l.webhook_id, l.replay_id, l.account_id,
 (l.pos & 1048575)::integer, l.writer, l.at, l.version, l.type, '{"changed":true}', l.routing, l.event_id, l.delivery_id)) FOR 4), 'hex'))::bit(32)::integer FROM ` + some + ` s WHERE s.pos = l.pos`, false},
		mutation{"two seals swapped", `WITH one AS (SELECT * FROM relay.seals WHERE no > 0 AND chain = 'tail' ORDER BY no OFFSET {n} % (SELECT count(*) - 2 FROM relay.seals WHERE chain = 'tail') LIMIT 1)
UPDATE relay.seals s SET no = -s.no FROM one WHERE s.chain = 'tail' AND s.no IN (one.no, one.no + 1);
UPDATE relay.seals s SET no = (SELECT sum(-o.no) FROM relay.seals o WHERE o.no < 0) + s.no WHERE s.no < 0`, false},
		mutation{"the end cut off", `WITH cut AS (SELECT commit FROM relay.seals ORDER BY commit DESC OFFSET {n} % 5 LIMIT 1), s AS (DELETE FROM relay.seals s USING cut WHERE s.commit >= cut.commit)
DELETE FROM relay.log l USING cut WHERE l.pos >> 20 >= cut.commit`, false},
		mutation{"the end of the changes cut off", `WITH s AS (DELETE FROM relay.change_seals WHERE no IN (SELECT no FROM relay.change_seals ORDER BY no DESC LIMIT 1 + {n} % 2) RETURNING source, id, version),
 w AS (DELETE FROM relay.webhook_log w USING s WHERE s.source = 'webhook_log' AND (w.account_id, w.version) = (s.id, s.version))
DELETE FROM relay.replay_log r USING s WHERE s.source = 'replay_log' AND (r.replay_id, r.version) = (s.id, s.version)`, false},
		mutation{"the last commit numbered anew, with its entries", `WITH last AS (SELECT * FROM relay.seals ORDER BY commit DESC LIMIT 1), s AS (UPDATE relay.seals s SET commit = s.commit + 1 + {n} FROM last WHERE s.chain = last.chain AND s.no = last.no)
UPDATE relay.log l SET pos = l.pos + ((1 + {n})::bigint << 20) FROM last WHERE l.pos >> 20 = last.commit`, false},
	)
}

// Every change of what is sealed is found, by Go and by SQL, as long as the
// heads of an hour ago are at hand. The seed makes the run repeatable.
func TestEveryChangeIsFound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.eventful()
	b.verifiesClean()
	if got := scan[string](b, `SELECT string_agg(chain, ', ' ORDER BY number) FROM audit.heads WHERE no > 0`); got != "changes, tail, recorder, recorder 1" {
		t.Fatalf("the chains with seals are %s", got)
	}
	heads, err := postgres.NewAudit(b.db).Heads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tables := []string{"relay.log", "relay.seals", "relay.change_seals", "relay.webhook_log", "relay.replay_log"}
	for _, table := range tables {
		b.exec(`CREATE TABLE saved_` + strings.TrimPrefix(table, "relay.") + ` AS SELECT * FROM ` + table)
	}
	restore := "SET LOCAL session_replication_role = replica;"
	for _, table := range tables {
		restore += "DELETE FROM " + table + "; INSERT INTO " + table + " SELECT * FROM saved_" + strings.TrimPrefix(table, "relay.") + ";"
	}
	kinds := mutations()
	const seed, rounds = 20261126, 240
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // to be repeated
	random.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	for i := range rounds {
		m := kinds[i%len(kinds)]
		statement := strings.ReplaceAll(m.statement, "{n}", strconv.Itoa(random.IntN(10_000)))
		b.exec(`BEGIN; SET LOCAL session_replication_role = replica; ` + statement + `; COMMIT`)
		same := scan[bool](b, `
SELECT NOT EXISTS (SELECT l::text FROM relay.log l EXCEPT SELECT l::text FROM saved_log l) AND (SELECT count(*) FROM relay.log) = (SELECT count(*) FROM saved_log)
   AND NOT EXISTS (SELECT l::text FROM relay.seals l EXCEPT SELECT l::text FROM saved_seals l) AND (SELECT count(*) FROM relay.seals) = (SELECT count(*) FROM saved_seals)
   AND NOT EXISTS (SELECT l::text FROM relay.change_seals l EXCEPT SELECT l::text FROM saved_change_seals l) AND (SELECT count(*) FROM relay.change_seals) = (SELECT count(*) FROM saved_change_seals)
   AND NOT EXISTS (SELECT l::text FROM relay.webhook_log l EXCEPT SELECT l::text FROM saved_webhook_log l) AND (SELECT count(*) FROM relay.webhook_log) = (SELECT count(*) FROM saved_webhook_log)
   AND NOT EXISTS (SELECT l::text FROM relay.replay_log l EXCEPT SELECT l::text FROM saved_replay_log l) AND (SELECT count(*) FROM relay.replay_log) = (SELECT count(*) FROM saved_replay_log)`)
		if same {
			t.Errorf("%d: %s: changed nothing", i, m.name)
			continue
		}
		_, inGo, inSQL := b.verify(&heads)
		if len(inGo) == 0 || len(inSQL) == 0 {
			t.Errorf("%d: %s: found %d times in Go, and %d times in SQL: %+v %q\n%s", i, m.name, len(inGo), len(inSQL), inGo, inSQL, statement)
		}
		if m.names {
			named := false
			for _, f := range inGo {
				named = named || f.EventSeq != 0
			}
			if !named {
				t.Errorf("%d: %s: no entry is named: %+v", i, m.name, inGo)
			}
		}
		b.exec(`BEGIN;` + restore + `COMMIT`)
	}
	_, inGo, inSQL := b.verify(&heads)
	if len(inGo) != 0 || len(inSQL) != 0 {
		t.Errorf("all is as it was, and something is wrong: %+v; %q", inGo, inSQL)
	}
}

// A partition that was dropped leaves the chain whole.
func TestADroppedPartitionStillVerifies(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.webhook(1, "/hook", nil)
	r := b.start(nil)
	b.publish(1, "c", 1, 10)
	b.awaitStatus("succeeded", 10)
	b.exec(`SELECT setval('outbox.events_seq_seq', (SELECT min(upper) FROM relay.partitions) - 6)`)
	b.publish(1, "c", 11, 10)
	b.awaitStatus("succeeded", 20)
	r.stop()
	b.verifiesClean()
	gone := scan[int64](b, `SELECT count(*) FROM relay.log_0`)
	all := scan[int64](b, `SELECT count(*) FROM relay.log`)
	b.exec(`TRUNCATE relay.log_0`)
	found := b.verifiesClean()
	if found.Dropped != gone || found.Entries != all-gone || found.DroppedFrom != 0 || found.DroppedTo < 100_000 {
		t.Errorf("of %d entries %d are gone; the verification says %+v", all, gone, found)
	}
	// What is left of a partition is not dropped, nor is a stretch of one.
	b.exec(`DELETE FROM relay.log WHERE event_seq < (SELECT max(event_seq) FROM relay.log)`)
	if _, inGo, inSQL := b.verify(nil); len(inGo) == 0 || len(inSQL) == 0 {
		t.Errorf("most of a partition is deleted, and %d and %d flaws are found", len(inGo), len(inSQL))
	}
}

// lossy is a TCP proxy before PostgreSQL that now and then takes what a client
// asked to the server, waits until the server has done it, and closes the
// connection instead of giving the answer.
type lossy struct {
	net.Listener
	server string
	lost   atomic.Int64
	calm   atomic.Bool // nothing is lost any more
}

// newLossy gives a proxy to the server of a DSN, and the DSN that leads
// through it.
func newLossy(t *testing.T, dsn string) (*lossy, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &lossy{Listener: listener, server: u.Host}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go l.carry(client)
		}
	}()
	u.Host = listener.Addr().String()
	return l, u.String()
}

func (l *lossy) carry(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.Dial("tcp", l.server) //nolint:noctx // ends with its client
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var lose atomic.Bool
	go func() {
		defer func() { _ = client.Close() }()
		answer := make([]byte, 64<<10)
		for {
			n, err := server.Read(answer)
			if lose.Load() && n > 0 {
				l.lost.Add(1)
				return
			}
			if _, writeErr := client.Write(answer[:n]); err != nil || writeErr != nil {
				return
			}
		}
	}()
	request := make([]byte, 64<<10)
	for {
		n, err := client.Read(request)
		const long = 600                                     // as what writes entries is
		if n > long && rand.IntN(8) == 0 && !l.calm.Load() { //nolint:gosec // a random moment
			lose.Store(true)
		}
		if _, writeErr := server.Write(request[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// The chains stay whole while relays lose answers at random moments, those of
// commits among them, and take over from each other.
func TestSealsWhenAnswersAreLost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for account := range 3 {
		b.webhook(account64(account), fmt.Sprintf("/%d", account), nil)
	}
	proxy, through := newLossy(t, b.dsn)
	proxied := *b
	proxied.dsn = through
	start := func() *running { return proxied.start(func(c *relay.Config) { c.BatchRows = 5 }) }
	const rounds = 40
	running := []*running{start(), start()}
	for i := range rounds {
		for account := range 3 {
			b.publish(account64(account), fmt.Sprint("c", i%5), 3*i, 3)
		}
		b.eventually("half of it", func() (bool, string) {
			n := len(b.receiver.got(""))
			return n >= 9*i/2, fmt.Sprintf("%d POSTs", n)
		})
		if i%10 == 9 {
			running[i/10%2].stop()
			running[i/10%2] = start()
		}
	}
	proxy.calm.Store(true)
	b.eventually("all deliveries", func() (bool, string) {
		counts := b.deliveries()
		return counts["succeeded"] == 9*rounds, fmt.Sprint(counts)
	})
	for _, r := range running {
		r.stop()
	}
	found := b.verifiesClean()
	if n := proxy.lost.Load(); n < 5 {
		t.Errorf("%d answers were lost: the test shows little", n)
	} else {
		t.Logf("%d answers were lost, %d seals written by %d relays", n, found.Seals, scan[int](b, `SELECT count(DISTINCT relay_id) - 1 FROM relay.seals`))
	}
	if gaps := scan[int64](b, `SELECT count(*) FROM (SELECT no - lag(no) OVER (PARTITION BY chain ORDER BY no) AS step FROM relay.seals) s WHERE step <> 1`); gaps != 0 {
		t.Errorf("the chains have %d gaps", gaps)
	}
	if n := scan[int](b, `
SELECT count(*) FROM relay.seals s
 WHERE no > 0 AND (links IS NOT NULL) <> (relay_id <> (SELECT p.relay_id FROM relay.seals p WHERE p.chain = s.chain AND p.no = s.no - 1))`); n != 0 {
		t.Errorf("%d seals link to the other chains where they need not, or do not where they should", n)
	}
}
