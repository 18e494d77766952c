package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"github.com/outrider-relay/outrider/domain"
)

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
