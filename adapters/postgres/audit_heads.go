package postgres

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

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
