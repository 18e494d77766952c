package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/lib/pq"

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
