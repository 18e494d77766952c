// Package postgres keeps everything of Outrider that lasts: the chain, the
// log, what is due, webhooks, leases and replays, and reads the audit views.
//
// It is the one place with SQL of the schema relay and the one that translates
// SQLSTATEs. It decides nothing: the events it appends come from package
// domain by way of package relay.
package postgres
