package postgres

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
