package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"slices"

	"github.com/lib/pq"
	"golang.org/x/sync/errgroup"

	"github.com/outrider-relay/outrider/domain"
)

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
