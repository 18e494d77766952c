// Package outbox has both ends of the table outbox.events: Writer, with which
// a Go producer inserts chat events in its own transaction, and Tail, the
// Watermill subscriber through which the relay reads them.
//
// The tail guarantees that each committed row is handed over, and written down
// as routed, exactly once: window.go tells which rows are next, poll.go reads
// them, tail.go gives them to Watermill, ahead.go reads the next ones meanwhile,
// wake.go lets the reader sleep. What is written for a routed batch is the Chain's
// business, a port that adapters/postgres fills.
//
// It does not decide where an event goes, and it sends nothing.
package outbox
