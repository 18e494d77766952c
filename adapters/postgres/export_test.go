package postgres

import "github.com/outrider-relay/outrider/domain"

// ChangedQuery is for a test of its plan.
const ChangedQuery = changedQuery

// These are for a test of what is planned once.
const (
	HeadQuery       = headQuery
	RecordStatement = recordStatement
)

// The helpers of other files of the package.
var (
	IsCode             = isCode
	IsNotNullViolation = isNotNullViolation
	IsLockTimeout      = isLockTimeout
	IsSerialization    = isSerialization
)

// EntriesQuery is what a verification reads entries with.
const EntriesQuery = entriesQuery

// DigestRow is what a verification makes of a row of EntriesQuery.
func DigestRow(raw []byte) (domain.Hash, error) {
	row, err := new(entryReader).read(raw)
	return row.digest, err
}
