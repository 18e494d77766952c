// Package sample stands in for the world around a relay: Traffic is a chat
// system that inserts events as its users write, Receiver the webhooks that
// accounts have registered, of which some are slow, unreliable or dead.
//
// Both stand at the ends of the flow, for `outrider dev` and for tests. Traffic
// knows the outbox only by its public contract, plain INSERTs in transactions
// that lock their conversation first; Receiver knows the relay only by what
// arrives over HTTP, and keeps book of it: signatures, repeats and what their
// headers say of the attempt before, order within each conversation.
//
// The same seed gives the same conversations and the same mishaps. Nothing here
// judges a relay: the counts are for the caller.
package sample
