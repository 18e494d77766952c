// Package relay carries a chat event from the outbox to its webhooks. Its
// files stand in the order in which an event passes them:
//
//	route.go     a Watermill handler resolves the account's webhooks; the
//	             decisions of a batch are written by one statement
//	dispatch.go  one goroutine decides what starts when
//	  admit.go     takes committed batches into per-webhook queues (queue.go)
//	  start.go     asks for the next attempt, within the webhook's caps: its
//	               concurrency, its rate (rate.go), its breaker (breaker.go)
//	  fair.go      and within its account's share of the room; some attempts
//	               begin ahead of it, so that none stands empty (ahead.go)
//	  wait.go      sends to the due table what must wait: holds, overflow
//	  bodies.go    bounds the bytes that are in memory and on their way
//	record.go    writes starts and outcomes by group commit; a POST leaves
//	             only after its start is on record
//	send.go      makes the POSTs and hands outcomes back to the dispatcher
//	  settle.go    records outcomes, and lets the next of a conversation go;
//	               disables what only fails (failing.go)
//	  readback.go  brings back what waited, when its time has come, but what
//	               cannot be read (unreadable.go) or has moved on (staleness.go)
//	replay.go    schedules new deliveries of old events
//	operator.go  tells the operator what goes wrong, by events like any other
//	project.go   adds up what was recorded: the statistics of webhooks
//	ending.go    ends deliveries whose payloads are about to be erased
//	share.go     keeps this relay's share of the webhooks fair beside others'
//	  lease.go     gives signs of life, and sends nothing without a lease
//	  gain.go      takes up shards of webhooks where another relay left them
//	  counting.go  learns which of their conversations wait for something
//	  lose.go      gives shards up, once all of them is on record (barrier.go)
//	tailing.go   is what the one relay does that tails
//	clock.go     tells a time that never goes back
//	relay.go     joins the stages
//
// No stage calls an earlier one: a retry is a row of the due table, which the
// dispatcher reads when its time has come. Every rule of a delivery is in
// domain.Decide. What is in memory may be lost at any moment; a successor goes
// on from the log, the due table and the last sign of life.
package relay
