package postgres

// ChangedQuery is for a test of its plan.
const ChangedQuery = changedQuery

// The helpers of other files of the package.
var (
	IsCode             = isCode
	IsNotNullViolation = isNotNullViolation
	IsLockTimeout      = isLockTimeout
	IsSerialization    = isSerialization
)
