package postgres_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// registered gives a relay, and the number of its recorder.
func registered(t *testing.T, db *sql.DB) (relayID int64, recorder int) {
	t.Helper()
	relayID, err := postgres.NewLeases(db).Register(t.Context(), "test", "test", true)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRowContext(t.Context(), `SELECT recorder FROM relay.relays WHERE relay_id = $1`, relayID).Scan(&recorder); err != nil {
		t.Fatal(err)
	}
	return relayID, recorder
}

// recordHeld records an entry of the stream of an event, and nothing else.
func recordHeld(ctx context.Context, log *postgres.Log, relayID, seq int64) error {
	_, err := log.Record(ctx, relayID, []relay.Change{{
		Key: domain.DeliveryKey{EventSeq: seq, WebhookID: 1}, AccountID: 1, First: 1,
		Entries: []domain.Entry{{Type: domain.TypeHeld, At: time.Now(), Data: []byte("{}")}},
	}})
	return err
}

// verified gives what Go and SQL say is wrong.
func verified(t *testing.T, db *sql.DB) (inGo, inSQL []string) {
	t.Helper()
	found, err := postgres.NewAudit(db).Verify(t.Context(), postgres.VerifyRange{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found.Flaws {
		inGo = append(inGo, fmt.Sprintf("%s %d: %s", f.Chain, f.Seal, f.Problem))
	}
	return inGo, texts(t, db, `SELECT format('%s %s: %s', chain, seal, problem) FROM audit.verify()`)
}

// verifiesClean fails where anything is wrong.
func verifiesClean(t *testing.T, db *sql.DB) {
	t.Helper()
	if inGo, inSQL := verified(t, db); len(inGo)+len(inSQL) > 0 {
		t.Errorf("nothing was changed, and something is wrong: %q; %q", inGo, inSQL)
	}
}

// writersQuery tells which relays wrote to each chain of recorders, in order.
const writersQuery = `
SELECT format('%s: %s', w.chain, string_agg(format('%s of relay %s', w.n, w.relay_id), ', ' ORDER BY w.first))
  FROM (SELECT s.chain, s.relay_id, count(*) AS n, min(s.no) AS first FROM relay.seals s WHERE s.no > 0 AND s.chain <> 'tail' GROUP BY s.chain, s.relay_id) w
 GROUP BY w.chain ORDER BY w.chain`

// Relays record at the same time, each in a chain of its own: none makes
// another one's seals stale, and the history verifies.
func TestRelaysRecordAtTheSameTime(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	const each, relays = 60, 3
	var ids [relays]int64
	for i := range ids {
		ids[i], _ = registered(t, db)
	}
	before := make(chan struct{})
	var writing sync.WaitGroup
	for i, relayID := range ids {
		writing.Go(func() {
			log := postgres.NewLog(db)
			<-before
			for n := range int64(each) {
				if err := recordHeld(t.Context(), log, relayID, 1000*int64(i)+n); err != nil {
					t.Errorf("relay %d: %v", relayID, err)
				}
			}
		})
	}
	close(before)
	writing.Wait()
	want := []string{
		fmt.Sprintf("recorder: %d of relay %d", each, ids[0]),
		fmt.Sprintf("recorder 1: %d of relay %d", each, ids[1]),
		fmt.Sprintf("recorder 2: %d of relay %d", each, ids[2]),
	}
	if got := texts(t, db, writersQuery); !slices.Equal(got, want) {
		t.Errorf("the chains have %q, want %q", got, want)
	}
	if n := texts(t, db, `SELECT count(*)::text FROM (SELECT chain <> lag(chain) OVER (ORDER BY commit) AS other FROM relay.seals WHERE no > 0) s WHERE other`)[0]; n == "2" {
		t.Error("they recorded one after the other: the test shows nothing")
	}
	verifiesClean(t, db)
	heads, err := postgres.NewAudit(db).Heads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var chains []string
	for _, head := range heads.Heads {
		chains = append(chains, fmt.Sprintf("%s %d", head.Chain, head.No))
	}
	if want := []string{"changes 0", "tail 0", "recorder 60", "recorder 1 60", "recorder 2 60"}; !slices.Equal(chains, want) {
		t.Errorf("the heads are of %q, want %q", chains, want)
	}
	// Exported heads tell of a chain that is gone.
	do(t, db, `WITH s AS (DELETE FROM relay.seals WHERE chain = 'recorder 2' RETURNING no, commit) DELETE FROM relay.log l USING s WHERE s.no > 0 AND l.pos >> 20 = s.commit`)
	missing, err := postgres.NewAudit(db).CompareHeads(t.Context(), heads.Heads)
	if err != nil || len(missing) != 1 || missing[0].Chain != "recorder 2" {
		t.Errorf("the heads of a chain that is gone: %+v, %v", missing, err)
	}
}

// Numbers are taken once, the lowest that is free, and each chain begins where
// all do.
func TestRelaysThatRegisterAtOnceGetNumbersOfTheirOwn(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	do(t, db, `UPDATE relay.seals SET commit = 7 WHERE no = 0`)
	const relays = 8
	var registering sync.WaitGroup
	before := make(chan struct{})
	for range relays {
		registering.Go(func() {
			<-before
			if _, err := postgres.NewLeases(db).Register(t.Context(), "test", "test", true); err != nil {
				t.Error(err)
			}
		})
	}
	close(before)
	registering.Wait()
	if got := strings.Join(texts(t, db, `SELECT recorder::text FROM relay.relays ORDER BY recorder`), " "); got != "0 1 2 3 4 5 6 7" {
		t.Errorf("the numbers are %s", got)
	}
	if got := strings.Join(texts(t, db, `SELECT chain FROM relay.seals WHERE no = 0 AND commit = 7 ORDER BY chain COLLATE "C"`), ", "); got !=
		"recorder, recorder 1, recorder 2, recorder 3, recorder 4, recorder 5, recorder 6, recorder 7, tail" {
		t.Errorf("the chains are %s", got)
	}
	verifiesClean(t, db)
	do(t, db, `UPDATE relay.relays SET fenced_at = now() WHERE recorder IN (2, 5)`)
	for _, want := range []int{2, 5, 8} {
		if _, got := registered(t, db); got != want {
			t.Errorf("a relay got the number %d, want %d", got, want)
		}
	}
	verifiesClean(t, db)
}

// The chain of a relay that is fenced goes on with the next one that registers,
// also in the same process, and its first seal links to all other chains.
func TestAChainGoesOnWithAnotherRelay(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	one, other := postgres.NewLog(db), postgres.NewLog(db)
	seq := int64(0)
	record := func(log *postgres.Log, relayID int64) {
		t.Helper()
		seq++
		if err := recordHeld(t.Context(), log, relayID, seq); err != nil {
			t.Fatal(err)
		}
	}
	fence := func(relayID int64) {
		do(t, db, fmt.Sprintf(`UPDATE relay.relays SET fenced_at = now() WHERE relay_id = %d`, relayID))
	}
	first, _ := registered(t, db)
	second, _ := registered(t, db)
	record(one, first)
	record(other, second)
	record(one, first)
	fence(second)
	// The same process, and another chain: it must not go on in the first's.
	third, _ := registered(t, db)
	record(one, third)
	record(one, third)
	fence(first)
	fourth, _ := registered(t, db)
	record(other, fourth)
	record(one, third)
	record(other, fourth)
	want := []string{
		fmt.Sprintf("recorder: 2 of relay %d, 2 of relay %d", first, fourth),
		fmt.Sprintf("recorder 1: 1 of relay %d, 3 of relay %d", second, third),
	}
	if got := texts(t, db, writersQuery); !slices.Equal(got, want) {
		t.Errorf("the chains have %q, want %q", got, want)
	}
	want = []string{
		"recorder 1: changes 0, tail 0, recorder 1 0",
		"recorder 3: changes 0, tail 0, recorder 1 3",
		"recorder 1 1: changes 0, tail 0, recorder 1",
		"recorder 1 2: changes 0, tail 0, recorder 2",
	}
	if got := texts(t, db, linksQuery); !slices.Equal(got, want) {
		t.Errorf("the seals link to %q, want %q", got, want)
	}
	verifiesClean(t, db)
}

// linksQuery tells what seals link to, which are all there but where chains
// begin.
const linksQuery = `
SELECT format('%s %s: %s', s.chain, s.no, (SELECT string_agg(format('%s %s', l.chain, l.no), ', ' ORDER BY l.ord) FROM audit.links(s.links) WITH ORDINALITY AS l (chain, no, hash, ord)))
  FROM relay.seals s WHERE s.no > 0 AND s.links IS NOT NULL ORDER BY s.chain, s.no`

// What is missing of a chain, or all of it, is found by the seals that link to
// it: those of other relays, and of changes.
func TestAMissingChainIsFoundByLinks(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]func(t *testing.T, db *sql.DB){
		"by a recorder": func(t *testing.T, db *sql.DB) {
			t.Helper()
			do(t, db, `UPDATE relay.relays SET fenced_at = now() WHERE recorder = 0`)
			next, _ := registered(t, db)
			if err := recordHeld(t.Context(), postgres.NewLog(db), next, 500); err != nil {
				t.Fatal(err)
			}
		},
		"by a change": func(t *testing.T, db *sql.DB) {
			t.Helper()
			do(t, db, `INSERT INTO relay.webhook_log (account_id, version, webhook_id, type, actor, after) VALUES (1, 1, 1, 'registered', 'me', '{}')`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t).SQL
			for i := range int64(2) {
				relayID, _ := registered(t, db)
				log := postgres.NewLog(db)
				for n := range int64(3) {
					if err := recordHeld(t.Context(), log, relayID, 100*i+n); err != nil {
						t.Fatal(err)
					}
				}
			}
			link(t, db)
			verifiesClean(t, db)
			for _, from := range []int{3, 1, 0} { // its last seal, all but its beginning, all
				do(t, db, fmt.Sprintf(`WITH s AS (DELETE FROM relay.seals WHERE chain = 'recorder 1' AND no >= %d RETURNING no, commit) DELETE FROM relay.log l USING s WHERE s.no > 0 AND l.pos >> 20 = s.commit`, from))
				inGo, inSQL := verified(t, db)
				for _, found := range [][]string{inGo, inSQL} {
					if len(found) != 1 || !strings.Contains(found[0], "it links to seal 3 of the chain recorder 1, which is missing or another one") {
						t.Errorf("without the seals from %d on, found: %q", from, found)
					}
				}
			}
		})
	}
}

// A chain has a name that is one, and a beginning, which is where all begin.
func TestChainsHaveTheirBeginnings(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	for i := range int64(2) {
		relayID, _ := registered(t, db)
		if err := recordHeld(t.Context(), postgres.NewLog(db), relayID, i); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = registered(t, db) // whose chain has its beginning alone
	do(t, db, `CREATE TABLE saved AS SELECT * FROM relay.seals`)
	for statement, want := range map[string]string{
		`DELETE FROM relay.seals WHERE chain = 'recorder 1' AND no = 0`:                                                                  "recorder 1 0: the chain's beginning is missing",
		`DELETE FROM relay.seals WHERE chain = 'recorder' AND no = 0`:                                                                    "recorder 0: the chain's beginning is missing",
		`DELETE FROM relay.seals WHERE chain = 'tail' AND no = 0`:                                                                        "tail 0: the chain's beginning is missing",
		`UPDATE relay.seals SET chain = 'recorder 01' WHERE chain = 'recorder 1'`:                                                        "recorder 01 0: there is no such chain",
		`UPDATE relay.seals SET chain = 'changes' WHERE chain = 'recorder 1'`:                                                            "changes 0: there is no such chain",
		`UPDATE relay.seals SET chain = 'recorder 100000' WHERE chain = 'recorder 2'`:                                                    "recorder 100000 0: there is no such chain",
		`UPDATE relay.seals SET commit = 1000 WHERE chain = 'recorder 2'; DELETE FROM relay.seals WHERE chain = 'recorder 1' AND no = 1`: "recorder 2 0: it begins at another commit than the chain tail",
		`DELETE FROM relay.seals WHERE chain = 'recorder 1' AND no = 1; UPDATE relay.seals SET commit = 1000 WHERE chain = 'recorder 2'`: " : no seal covers this entry",
	} {
		do(t, db, statement)
		inGo, inSQL := verified(t, db)
		if !slices.ContainsFunc(inSQL, func(line string) bool { return strings.HasSuffix(line, want) }) {
			t.Errorf("%s: SQL finds %q, not %q", statement, inSQL, want)
		}
		if want = strings.Replace(want, " :", " 0:", 1); !slices.ContainsFunc(inGo, func(line string) bool { return strings.HasSuffix(line, want) }) {
			t.Errorf("%s: Go finds %q, not %q", statement, inGo, want)
		}
		do(t, db, `DELETE FROM relay.seals`, `INSERT INTO relay.seals SELECT * FROM saved`)
	}
	verifiesClean(t, db)
}

// Numbers and names of chains belong together, and links hold whatever they may.
func TestLinksAreReadInSQL(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t).SQL
	if got := texts(t, db, `
SELECT format('%s %s %s', n, audit.chain_name(n), audit.chain_number(audit.chain_name(n)))
  FROM unnest(ARRAY[0, 1, 2, 3, 12, 32769]) n`); !slices.Equal(got, []string{"0 changes 0", "1 tail 1", "2 recorder 2", "3 recorder 1 3", "12 recorder 10 12", "32769 recorder 32767 32769"}) {
		t.Errorf("the names and numbers are %q", got)
	}
	if got := texts(t, db, `
SELECT format('%s|%s|%s', l.chain, l.no, encode(l.hash, 'hex'))
  FROM unnest(ARRAY[NULL, '', decode(repeat('00', 43), 'hex'), decode(repeat('ff', 44), 'hex'), decode('80000000' || repeat('00', 40) || '0000000300000000000000070' || repeat('1', 63) || 'ff', 'hex')]) AS links
 CROSS JOIN LATERAL audit.links(links) l`); len(got) != 3 ||
		!strings.HasPrefix(got[0], "recorder -3|-1|ffff") || !strings.HasPrefix(got[1], "recorder -2147483650|0|0000") || got[2] != "recorder 1|7|0"+strings.Repeat("1", 63) {
		t.Errorf("the links are %q", got)
	}
}
