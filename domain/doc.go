// Package domain is the model of Outrider: chat events, webhooks, routing and
// deliveries, as values and pure functions.
//
// It stands leftmost in the import order (domain, outbox, relay, adapters,
// cmd) and knows nothing of SQL, HTTP, clocks or randomness: time and jitter
// are arguments. Two functions hold every rule of an aggregate: Decide turns a
// state and a command into events, Evolve turns a state and an event into the
// next state. What the relay writes down are those events; every status that
// users see is a fold over them.
package domain
