package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/outrider-relay/outrider/domain"
)

// entryRow is an entry as a verification reads it.
type entryRow struct {
	pos, eventSeq, webhookID, replayID int64
	version                            int32
	digest                             domain.Hash
	// fits says that the entry's mark is of this digest.
	fits bool
}

// entryReader digests the rows of entriesQuery. It keeps its memory.
type entryReader struct{ content []byte }

var errNotARow = errors.New("the database sent an entry in a form that is not known")

// entryFields is how many columns entriesQuery gives.
const entryFields = 14

// read takes a row in the form of record_send: the number of fields, and for
// each the OID of its type, its length, -1 for NULL, and its bytes.
func (r *entryReader) read(raw []byte) (entryRow, error) {
	var fields [entryFields][]byte
	if len(raw) < 4 || binary.BigEndian.Uint32(raw) != entryFields {
		return entryRow{}, errNotARow
	}
	raw = raw[4:]
	for i := range fields {
		if len(raw) < 8 {
			return entryRow{}, errNotARow
		}
		n := int(int32(binary.BigEndian.Uint32(raw[4:]))) //nolint:gosec // -1 is NULL
		raw = raw[8:]
		if n < 0 {
			continue
		}
		if n > len(raw) {
			return entryRow{}, errNotARow
		}
		fields[i], raw = raw[:n:n], raw[n:]
	}
	if len(raw) > 0 {
		return entryRow{}, errNotARow
	}
	for _, size := range [...]struct{ from, to, bytes int }{{0, 1, 8}, {2, 3, 4}, {3, 9, 8}} {
		for _, field := range fields[size.from:size.to] {
			if len(field) != size.bytes {
				return entryRow{}, fmt.Errorf("%w: a number is missing", errNotARow)
			}
		}
	}
	row := entryRow{
		pos: int64Of(fields[0]), version: int32Of(fields[2]), eventSeq: int64Of(fields[3]), webhookID: int64Of(fields[4]), replayID: int64Of(fields[5]),
	}
	sealed := domain.SealedEntry{
		EventSeq: row.eventSeq, WebhookID: row.webhookID, ReplayID: row.replayID, AccountID: int64Of(fields[6]),
		Ordinal: ordinalOf(row.pos), Writer: int64Of(fields[7]), At: int64Of(fields[8]), Version: row.version,
		Type: fields[9], Data: fields[10], Routing: fields[11], EventID: fields[12], Delivery: fields[13],
	}
	r.content = sealed.AppendCanonical(r.content[:0])
	row.digest = sha256.Sum256(r.content)
	row.fits = len(fields[1]) == 4 && int32Of(fields[1]) == domain.Mark(row.digest)
	return row, nil
}

func int64Of(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) } //nolint:gosec // the same bits

func int32Of(b []byte) int32 { return int32(binary.BigEndian.Uint32(b)) } //nolint:gosec // the same bits

// ordinalOf is an entry's number within its commit.
func ordinalOf(pos int64) int32 { return int32(pos & (1<<commitShift - 1)) }

// openLeaf gathers the entries of a leaf. They come in about the order in which
// they were written, so that few leaves have some and not all.
type openLeaf struct {
	*sealedLeaf
	found int32
	last  entryRow
	got   []leafEntry
	odd   []entryRow // whose mark does not fit
}

type leafEntry struct {
	ordinal int32
	digest  domain.Hash
}

func (l *openLeaf) flaw(problem string) Flaw {
	return Flaw{Chain: l.chain, Seal: l.seal, Commit: l.commit, Problem: problem}
}

func (l *openLeaf) named(row *entryRow, problem string) Flaw {
	f := l.flaw(problem)
	f.EventSeq, f.WebhookID, f.ReplayID, f.Version = row.eventSeq, row.webhookID, row.replayID, int64(row.version)
	return f
}

// take adds an entry, and judges the leaf once it has all.
func (l *openLeaf) take(row *entryRow) []Flaw {
	l.found++
	if l.found > l.Entries {
		return []Flaw{l.named(row, fmt.Sprintf("there are more than %d entries here: this one, or another, was added", l.Entries))}
	}
	if l.got == nil {
		l.got = make([]leafEntry, 0, min(l.Entries, 4096))
	}
	l.last = *row
	l.got = append(l.got, leafEntry{ordinalOf(row.pos), row.digest})
	if !row.fits {
		l.odd = append(l.odd, *row)
	}
	if l.found < l.Entries {
		return nil
	}
	flaws, _ := l.judge()
	l.got = nil
	return flaws
}

// judge compares what was found with the seal. whole says that it fits.
func (l *openLeaf) judge() (flaws []Flaw, whole bool) {
	h := sha256.New()
	slices.SortStableFunc(l.got, func(a, b leafEntry) int { return int(a.ordinal - b.ordinal) })
	for i := range l.got {
		h.Write(l.got[i].digest[:])
	}
	whole = l.found == l.Entries && domain.Hash(h.Sum(nil)) == l.Digest
	problem := "this entry was changed, moved or added"
	if whole {
		problem = "its mark was changed"
	}
	for i := range l.odd {
		flaws = append(flaws, l.named(&l.odd[i], problem))
	}
	switch {
	case whole || l.found != l.Entries || len(flaws) > 0:
	case l.Entries == 1:
		flaws = append(flaws, l.named(&l.last, problem))
	default:
		flaws = append(flaws, l.flaw(fmt.Sprintf("one of its entries between %d and %d was changed; none says which",
			l.Stretch*domain.StretchSize, (l.Stretch+1)*domain.StretchSize-1)))
	}
	l.odd = nil
	return flaws, whole
}

// missing names the ordinals that are not there, where the leaf has all of its
// commit's up to the highest.
func (l *openLeaf) missing() string {
	var gaps []int32
	next := int32(1)
	if len(l.got) > 0 && l.got[0].ordinal > 1 {
		next = l.got[0].ordinal // those before belong to another stretch, or are missing
	}
	for i := range l.got {
		for ; next < l.got[i].ordinal && len(gaps) < 5; next++ {
			gaps = append(gaps, next)
		}
		next = l.got[i].ordinal + 1
	}
	if len(gaps) == 0 || len(gaps) != int(l.Entries-l.found) {
		return ""
	}
	return fmt.Sprintf(": number %v of the commit is missing", gaps)
}
