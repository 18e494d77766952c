package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/lib/pq"
	"golang.org/x/sync/errgroup"

	"github.com/outrider-relay/outrider/domain"
)

// VerifyRange selects group commits; its zero values select all. Changes of
// webhooks and steps of replays are all verified, whatever it says.
type VerifyRange struct {
	// From and To are the first and the last group commit.
	From, To int64
	// Since and Until bound when the last entry of each was written.
	Since, Until time.Time
}

// Flaw is something that does not fit the seals.
type Flaw struct {
	Chain domain.Chain `json:"chain,omitempty"`
	// Seal and Commit say which seal and group commit, 0 where that is not
	// known.
	Seal   int64 `json:"seal,omitempty"`
	Commit int64 `json:"commit,omitempty"`
	// EventSeq, WebhookID, ReplayID and Version are the entry, where it can be
	// named; for a change only Version is set.
	EventSeq  int64  `json:"event_seq,omitempty"`
	WebhookID int64  `json:"webhook_id,omitempty"`
	ReplayID  int64  `json:"replay_id,omitempty"`
	Version   int64  `json:"version,omitempty"`
	Problem   string `json:"problem"`
}

// Verification is what a verification found.
type Verification struct {
	// From and To are the group commits that were verified.
	From, To int64
	// Seals, Entries and Changes count what was verified.
	Seals, Entries, Changes int64
	// Dropped counts entries that are gone with the whole of their partition;
	// DroppedFrom and DroppedTo bound the places in the outbox of their events.
	Dropped, DroppedFrom, DroppedTo int64
	// Flaws are the first that were found; Found is how many there are.
	Flaws []Flaw
	Found int
}

// flawsKept bounds what is remembered of a log that was rewritten.
const flawsKept = 1000

// leavesAtOnce bounds the memory of a verification: some 100 bytes each.
const leavesAtOnce = 1 << 20

// allCommits is above the number of any group commit.
const allCommits = math.MaxInt64>>commitShift - 1

// verifier is one verification, in one snapshot.
type verifier struct {
	db       database
	tx       *sql.Tx
	snapshot string
	progress func(done, all int64)

	genesis int64
	last    int64                 // the last commit that has a seal
	begun   map[domain.Chain]bool // chains with a beginning, or that were told to have none
	heads   map[domain.Chain]*domain.SealHead
	window  []sealedLeaf

	mu   sync.Mutex
	v    Verification
	all  int64
	done int64
}

// sealedLeaf is what a seal says of a stretch.
type sealedLeaf struct {
	domain.Leaf
	chain        domain.Chain
	seal, commit int64
}

// Verify recomputes the seals of a range and compares them with the log. All
// that it hashes it hashes itself, but for changes of webhooks and replays,
// which hold what an auditor may not read: those the database digests. progress
// hears how many of the entries were read; it must not block.
func (a *Audit) Verify(ctx context.Context, selected VerifyRange, progress func(done, all int64)) (Verification, error) {
	tx, err := a.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return Verification{}, err
	}
	defer func() { _ = tx.Rollback() }()
	v := &verifier{db: a.db, tx: tx, progress: progress, begun: map[domain.Chain]bool{}, heads: map[domain.Chain]*domain.SealHead{}}
	for _, step := range []func(context.Context, VerifyRange) error{v.begin, v.beginChains, v.seals, v.unsealed, v.links, v.changes} {
		if err := step(ctx, selected); err != nil {
			return Verification{}, err
		}
	}
	v.v.From = max(v.v.From, 1)
	if v.v.To == allCommits {
		v.v.To = v.last
	}
	return v.v, nil
}

func (v *verifier) flaw(f Flaw) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.v.Found++
	if len(v.v.Flaws) < flawsKept {
		v.v.Flaws = append(v.v.Flaws, f)
	}
}

// begin finds the range's commits, and what there is to do.
func (v *verifier) begin(ctx context.Context, selected VerifyRange) error {
	v.v.From, v.v.To = selected.From, selected.To
	if v.v.To == 0 {
		v.v.To = allCommits
	}
	if !selected.Since.IsZero() || !selected.Until.IsZero() {
		since, until := "-infinity", "infinity"
		if !selected.Since.IsZero() {
			since = selected.Since.UTC().Format(time.RFC3339Nano)
		}
		if !selected.Until.IsZero() {
			until = selected.Until.UTC().Format(time.RFC3339Nano)
		}
		err := v.tx.QueryRowContext(ctx, `
SELECT greatest($3, coalesce(min(commit), 1)), least($4, coalesce(max(commit), 0))
  FROM audit.seals WHERE at >= $1::timestamptz AND at < $2::timestamptz AND no > 0`, since, until, v.v.From, v.v.To).Scan(&v.v.From, &v.v.To)
		if err != nil {
			return err
		}
	}
	return v.tx.QueryRowContext(ctx, `
SELECT pg_export_snapshot(),
       coalesce((SELECT commit FROM audit.seals WHERE chain = 'tail' AND no = 0), 0),
       coalesce((SELECT sum(n) FROM audit.seals s, unnest(s.entries) n WHERE s.commit BETWEEN $1 AND $2), 0)::bigint`, v.v.From, v.v.To).
		Scan(&v.snapshot, &v.genesis, &v.all)
}

// chainsQuery gives the chains that begin, and the two that every database has,
// each with the commit at which it begins.
const chainsQuery = `
SELECT c.chain, audit.chain_number(c.chain) > 0 IS TRUE, g.commit
  FROM (SELECT 'tail' AS chain UNION SELECT 'recorder' UNION SELECT s.chain FROM audit.seals s WHERE s.no = 0) c
  LEFT JOIN audit.seals g ON g.chain = c.chain AND g.no = 0
 ORDER BY c.chain`

// beginning is where a chain begins.
type beginning struct {
	chain  domain.Chain
	known  bool // its name is one of a chain
	commit sql.NullInt64
}

// beginChains finds where chains begin, and the seals before the range, on
// which its first ones build.
func (v *verifier) beginChains(ctx context.Context, _ VerifyRange) error {
	beginnings, err := list(ctx, v.tx, func(row scanner) (b beginning, err error) {
		err = row.Scan(&b.chain, &b.known, &b.commit)
		return b, err
	}, chainsQuery)
	if err != nil {
		return err
	}
	for _, b := range beginnings {
		chain := b.chain
		v.begun[chain] = true
		switch {
		case !b.known:
			v.flaw(Flaw{Chain: chain, Problem: noSuchChain})
		case !b.commit.Valid:
			v.flaw(Flaw{Chain: chain, Problem: noBeginning})
		case b.commit.Int64 != v.genesis:
			v.flaw(Flaw{Chain: chain, Commit: b.commit.Int64, Problem: "it begins at another commit than the chain tail"})
		}
		var first sql.NullInt64
		err := v.tx.QueryRowContext(ctx, `SELECT no FROM audit.seals WHERE chain = $1 AND commit BETWEEN $2 AND $3 ORDER BY commit, no LIMIT 1`,
			string(chain), v.v.From, v.v.To).Scan(&first)
		switch {
		case err == nil && first.Int64 == 0:
			continue // its beginning
		case err != nil && !errors.Is(err, sql.ErrNoRows):
			return err
		}
		var head domain.SealHead
		var hash []byte
		err = v.tx.QueryRowContext(ctx, `SELECT no, hash, commit FROM audit.seals WHERE chain = $1 AND ($2::bigint IS NULL OR no < $2) ORDER BY no DESC LIMIT 1`,
			string(chain), first).Scan(&head.No, &hash, &head.Commit)
		switch {
		case errors.Is(err, sql.ErrNoRows): // its beginning is missing
		case err != nil:
			return err
		default:
			copy(head.Hash[:], hash)
			v.heads[chain] = &head
		}
	}
	return nil
}

// sealsQuery reads the seals of a range, all chains together.
const sealsQuery = `
SELECT chain, no, commit, relay_id, timestamptz_send(at), stretches::text, entries::text, digests, links, hash
  FROM audit.seals WHERE commit BETWEEN $1 AND $2 ORDER BY commit, chain, no`

// seals follows the chains, and verifies the leaves of some seals at a time.
func (v *verifier) seals(ctx context.Context, _ VerifyRange) error {
	rows, err := v.tx.QueryContext(ctx, sealsQuery, v.v.From, v.v.To)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var s domain.Seal
		var commit int64
		var at, digests, hash []byte
		var stretches, entries pq.Int64Array
		if err := rows.Scan(&s.Chain, &s.No, &commit, &s.RelayID, &at, &stretches, &entries, &digests, &s.Links, &hash); err != nil {
			return err
		}
		s.At = int64Of(at)
		copy(s.Hash[:], hash)
		if s.No > 0 { // not where a chain begins
			v.v.Seals++
		}
		v.last = commit
		if len(stretches) != len(entries) || len(digests) != len(domain.Hash{})*len(stretches) {
			v.flaw(Flaw{Chain: s.Chain, Seal: s.No, Commit: commit, Problem: "it is damaged: its leaves have no common number"})
			v.heads[s.Chain] = &domain.SealHead{No: s.No, Hash: s.Hash, Commit: commit}
			continue
		}
		for i := range stretches {
			leaf := domain.Leaf{Stretch: stretches[i], Entries: int32(entries[i]), Digest: domain.Hash(digests[i*len(domain.Hash{}):])} //nolint:gosec // an integer
			s.Leaves = append(s.Leaves, leaf)
			v.window = append(v.window, sealedLeaf{leaf, s.Chain, s.No, commit})
		}
		v.link(&s, commit)
		if len(v.window) >= leavesAtOnce {
			if err := v.leaves(ctx); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return v.leaves(ctx)
}

// What is wrong with chains as a whole.
const (
	noSuchChain = "there is no such chain"
	noBeginning = "the chain's beginning is missing"
)

// link verifies that a seal goes on where its chain was, and makes it the head.
func (v *verifier) link(s *domain.Seal, commit int64) {
	problem := ""
	switch head := v.heads[s.Chain]; {
	case !v.begun[s.Chain]:
		v.begun[s.Chain] = true // told
		v.flaw(Flaw{Chain: s.Chain, Problem: noBeginning})
	case s.No == 0 && head == nil:
		if s.Sum(nil) != s.Hash {
			problem = "it does not fit its hash: it was changed"
		}
	case head == nil:
		problem = "the seal before it is missing"
	case s.No != head.No+1:
		problem = fmt.Sprintf("the seal before it is missing: the one that is there has number %d", head.No)
	case commit <= head.Commit:
		problem = "its commit does not come after that of the seal before it"
	case s.Sum(head) != s.Hash:
		problem = "it does not fit its hash: it was changed, or the commit of the seal before it"
	}
	if problem != "" {
		v.flaw(Flaw{Chain: s.Chain, Seal: s.No, Commit: commit, Problem: problem})
	}
	v.heads[s.Chain] = &domain.SealHead{No: s.No, Hash: s.Hash, Commit: commit}
}

// leaves verifies those that were gathered, stretch by stretch.
func (v *verifier) leaves(ctx context.Context) error {
	if len(v.window) == 0 {
		return nil
	}
	defer func() { v.window = v.window[:0] }()
	low, high := v.window[0].commit, v.window[len(v.window)-1].commit
	stretches := map[int64][]sealedLeaf{}
	for _, leaf := range v.window {
		stretches[leaf.Stretch] = append(stretches[leaf.Stretch], leaf)
	}
	group, ctx := errgroup.WithContext(ctx)
	next := make(chan int64)
	for range min(runtime.GOMAXPROCS(0), 4) {
		group.Go(func() error { return v.work(ctx, next, stretches, low, high) })
	}
	group.Go(func() error {
		defer close(next)
		for stretch := range stretches {
			select {
			case next <- stretch:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return group.Wait()
}

// work verifies stretches, on a connection of its own and in the same snapshot.
func (v *verifier) work(ctx context.Context, next <-chan int64, stretches map[int64][]sealedLeaf, low, high int64) error {
	tx, err := v.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(ctx, `SET TRANSACTION SNAPSHOT `+pq.QuoteLiteral(v.snapshot)); err != nil {
		return err
	}
	for stretch := range next {
		if err := v.stretch(ctx, tx, stretch, stretches[stretch], low, high); err != nil {
			return err
		}
	}
	return nil
}

// entriesQuery reads what a stretch has of some commits. record_send gives a
// row in one piece, as PostgreSQL sends it in binary; reading columns would take
// four times as long.
const entriesQuery = `
SELECT record_send(ROW(e.pos, e.mark, e.version, e.event_seq, e.webhook_id, e.replay_id, e.account_id, e.writer, e.at,
                       e.type, e.data::text, e.routing, e.event_id, e.delivery_id))
  FROM audit.entries e
 WHERE e.event_seq >= $1 AND e.event_seq < $2 AND e.pos >= $3 AND e.pos < $4`

// stretch verifies the leaves of a stretch.
func (v *verifier) stretch(ctx context.Context, tx *sql.Tx, stretch int64, sealed []sealedLeaf, low, high int64) error {
	leaves := make(map[int64]*openLeaf, len(sealed))
	for i := range sealed {
		if other := leaves[sealed[i].commit]; other != nil { // two seals of one commit
			v.flaw(Flaw{Chain: sealed[i].chain, Seal: sealed[i].seal, Commit: sealed[i].commit, Problem: "another seal covers the same entries"})
			continue
		}
		leaves[sealed[i].commit] = &openLeaf{sealedLeaf: &sealed[i]}
	}
	rows, err := tx.QueryContext(ctx, entriesQuery, stretch*domain.StretchSize, (stretch+1)*domain.StretchSize, low<<commitShift, (high+1)<<commitShift)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	const often = 4096
	read := int64(0)
	var sealer entryReader
	for rows.Next() {
		var raw sql.RawBytes
		if err := rows.Scan(&raw); err != nil {
			return err
		}
		row, err := sealer.read(raw)
		if err != nil {
			return err
		}
		leaf := leaves[row.pos>>commitShift]
		if leaf == nil {
			continue // see unsealed
		}
		for _, flaw := range leaf.take(&row) {
			v.flaw(flaw)
		}
		read++
		if read%often == 0 {
			v.tell(often)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	v.tell(read % often)
	return v.left(ctx, tx, stretch, leaves)
}

// tell counts entries that were read.
func (v *verifier) tell(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.v.Entries += n
	v.done += n
	if v.progress != nil {
		v.progress(v.done, max(v.all, v.done))
	}
}

// left judges the leaves of which entries are missing.
func (v *verifier) left(ctx context.Context, tx *sql.Tx, stretch int64, leaves map[int64]*openLeaf) error {
	var asked, dropped bool
	for _, commit := range sortedCommits(leaves) {
		leaf := leaves[commit]
		if leaf.found >= leaf.Entries {
			continue
		}
		if leaf.found == 0 && !asked {
			asked = true
			if err := tx.QueryRowContext(ctx, `SELECT audit.stretch_dropped($1)`, stretch).Scan(&dropped); err != nil {
				return err
			}
		}
		if leaf.found == 0 && dropped {
			v.drop(stretch, int64(leaf.Entries))
			continue
		}
		flaws, whole := leaf.judge()
		for _, flaw := range flaws {
			v.flaw(flaw)
		}
		if whole {
			continue
		}
		v.flaw(leaf.flaw(fmt.Sprintf("of %d entries between %d and %d there are %d%s",
			leaf.Entries, stretch*domain.StretchSize, (stretch+1)*domain.StretchSize-1, leaf.found, leaf.missing())))
	}
	return nil
}

func (v *verifier) drop(stretch, entries int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	first, last := stretch*domain.StretchSize, (stretch+1)*domain.StretchSize-1
	if v.v.Dropped == 0 {
		v.v.DroppedFrom, v.v.DroppedTo = first, last
	}
	v.v.Dropped += entries
	v.v.DroppedFrom, v.v.DroppedTo = min(v.v.DroppedFrom, first), max(v.v.DroppedTo, last)
	v.done += entries
}

func sortedCommits(leaves map[int64]*openLeaf) []int64 {
	commits := make([]int64, 0, len(leaves))
	for commit := range leaves {
		commits = append(commits, commit)
	}
	slices.Sort(commits)
	return commits
}

// unsealedQuery finds entries of which no seal says that it has any there.
const unsealedQuery = `
SELECT e.pos >> 20, e.event_seq, e.webhook_id, e.replay_id, e.version
  FROM audit.entries e
 WHERE e.pos >> 20 BETWEEN $1 AND $2 AND (e.pos >> 20 <= 0 OR e.pos >> 20 > $3)
   AND NOT EXISTS (SELECT FROM audit.seals s WHERE s.commit = e.pos >> 20 AND e.event_seq / 100000 = ANY (s.stretches))
 ORDER BY 1, 2, 3, 4, 5`

// unsealed finds the entries that no seal covers.
func (v *verifier) unsealed(ctx context.Context, _ VerifyRange) error {
	rows, err := v.tx.QueryContext(ctx, unsealedQuery, v.v.From, v.v.To, v.genesis)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		f := Flaw{Problem: "no seal covers this entry"}
		if err := rows.Scan(&f.Commit, &f.EventSeq, &f.WebhookID, &f.ReplayID, &f.Version); err != nil {
			return err
		}
		v.flaw(f)
	}
	return rows.Err()
}

// linksQuery finds seals that link to a head of another chain that is not there.
const linksQuery = `
WITH linking AS (
  SELECT s.chain, s.no, s.commit, s.links FROM audit.seals s WHERE s.commit BETWEEN $1 AND $2 AND s.links IS NOT NULL
   UNION ALL
  SELECT 'changes', c.no, 0, c.links FROM audit.change_seals c)
SELECT l.chain, l.no, l.commit, o.chain, o.no
  FROM linking l
 CROSS JOIN LATERAL audit.links(l.links) o
  LEFT JOIN audit.seals s ON o.chain <> 'changes' AND s.chain = o.chain AND s.no = o.no
  LEFT JOIN audit.change_seals c ON o.chain = 'changes' AND c.no = o.no
 WHERE coalesce(s.hash, c.hash) IS DISTINCT FROM o.hash
 ORDER BY l.chain, l.no`

// links verifies that the heads are there that seals link to.
func (v *verifier) links(ctx context.Context, _ VerifyRange) error {
	rows, err := v.tx.QueryContext(ctx, linksQuery, v.v.From, v.v.To)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var f Flaw
		var other string
		var no int64
		if err := rows.Scan(&f.Chain, &f.Seal, &f.Commit, &other, &no); err != nil {
			return err
		}
		f.Problem = fmt.Sprintf("it links to seal %d of the chain %s, which is missing or another one", no, other)
		v.flaw(f)
	}
	return rows.Err()
}

const changesQuery = `
SELECT no, source, id, version, timestamptz_send(at), digest, found, links, hash FROM audit.change_seals ORDER BY no NULLS LAST, source, id, version`

// changes verifies the chain of changes of webhooks and steps of replays.
func (v *verifier) changes(ctx context.Context, _ VerifyRange) error {
	rows, err := v.tx.QueryContext(ctx, changesQuery)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	prev := domain.ChangeSeal{No: -1}
	var prevHash []byte
	for rows.Next() {
		var s domain.ChangeSeal
		var no sql.NullInt64
		var at, found, hash []byte
		if err := rows.Scan(&no, &s.Source, &s.ID, &s.Version, &at, &s.Digest, &found, &s.Links, &hash); err != nil {
			return err
		}
		f := Flaw{Chain: domain.ChainChanges, Seal: no.Int64, Version: s.Version}
		if !no.Valid {
			f.Problem = fmt.Sprintf("no seal covers this row of %s, of %d", s.Source, s.ID)
			v.flaw(f)
			continue
		}
		s.No, s.At = no.Int64, int64Of(at)
		switch sum := s.Sum(prevHash); {
		case s.No != prev.No+1:
			f.Problem = "the seal before it is missing"
		case !bytes.Equal(sum[:], hash):
			f.Problem = "it does not fit its hash: it was changed"
		case s.No > 0 && found == nil:
			f.Problem = fmt.Sprintf("the row of %s, of %d, is missing", s.Source, s.ID)
		case s.No > 0 && !bytes.Equal(found, s.Digest):
			f.Problem = fmt.Sprintf("the row of %s, of %d, was changed", s.Source, s.ID)
		}
		if f.Problem != "" {
			v.flaw(f)
		}
		if s.No > 0 {
			v.v.Changes++
		}
		prev, prevHash = s, slices.Clone(hash)
	}
	if prev.No < 0 {
		v.flaw(Flaw{Chain: domain.ChainChanges, Problem: noBeginning})
	}
	return rows.Err()
}

// Heads reads the newest seal of each chain, in the order of their numbers.
func (a *Audit) Heads(ctx context.Context) (domain.Heads, error) {
	heads := domain.Heads{At: time.Now().UTC().Truncate(time.Second)}
	rows, err := a.db.QueryContext(ctx, `
SELECT current_database(), chain, no, commit, hash FROM audit.heads ORDER BY number`)
	if err != nil {
		return heads, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var head domain.ChainHead
		var hash []byte
		if err := rows.Scan(&heads.Database, &head.Chain, &head.No, &head.Commit, &hash); err != nil {
			return heads, err
		}
		head.Hash = hex.EncodeToString(hash)
		heads.Heads = append(heads.Heads, head)
	}
	return heads, rows.Err()
}

// CompareHeads tells which of the heads are not in the database any more.
func (a *Audit) CompareHeads(ctx context.Context, heads []domain.ChainHead) ([]Flaw, error) {
	var flaws []Flaw
	for _, head := range heads {
		var commit int64
		var hash string
		err := a.db.QueryRowContext(ctx, `
SELECT commit, encode(hash, 'hex') FROM audit.seals WHERE chain = $1 AND no = $2
 UNION ALL
SELECT 0, encode(hash, 'hex') FROM audit.change_seals WHERE 'changes' = $1 AND no = $2`, string(head.Chain), head.No).Scan(&commit, &hash)
		f := Flaw{Chain: head.Chain, Seal: head.No, Commit: head.Commit}
		switch {
		case errors.Is(err, sql.ErrNoRows):
			f.Problem = "the heads name this seal, and it is missing: the end of the chain was cut"
		case err != nil:
			return nil, err
		case hash != head.Hash:
			f.Problem = "the heads name this seal, and there is another one in its place: the chain was written anew"
		case commit != head.Commit:
			f.Problem = fmt.Sprintf("the heads name this seal with commit %d, and it has %d", head.Commit, commit)
		}
		if f.Problem != "" {
			flaws = append(flaws, f)
		}
	}
	return flaws, nil
}
