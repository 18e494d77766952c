// Package httpapi answers the programs that configure webhooks and look at what
// became of chat events: Chatwoot's API of webhooks below /api/v1, as Chatwoot
// answers it, so that a script needs another address and another token, no more;
// and Outrider's own API below /api/outrider/v1.
//
// Each request names a token, and what that may decides: the account in the path
// is checked before anything is read. Whoever tries tokens is slowed down, and so
// is a token that asks too often. Nothing is decided here: commands go to the
// domain, through interfaces that stand beside their callers, with who asked.
//
// It does no work of a relay, and runs in a process of its own: a list that is
// long must not make a delivery wait.
package httpapi
