//go:build !linux

package postgres

import "syscall"

// limitUnacknowledged: here it is left to the system, and to answerTimeout.
func limitUnacknowledged(_, _ string, _ syscall.RawConn) error { return nil }
