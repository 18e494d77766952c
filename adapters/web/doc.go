// Package web has the pages on which people look after their webhooks: plain
// HTML, made by the server from templates that are part of the program, with a
// style sheet and a small script of ours. Without JavaScript the pages do all
// they can do; the script saves clicks.
//
// A request passes, in this order: the headers that every answer has
// (headers.go), the refusal of what another site's page sent (guard.go), the
// table of routes (routes.go), the session (session.go), the account in the
// path, the permission that the route takes, and, where it changes something,
// the token of the form (guard.go). What is left belongs to the page's own file:
// webhooks.go, deliveries.go and so on, one for each noun, with its templates
// under templates/.
//
// It promises that nothing is shown or changed that the session may not see or
// change, judged anew for each request; that what others wrote, as names, URLs
// and answers of receivers, is shown as text; and that no page tells more of an
// error than what mends it. It reads and changes webhooks and the history
// through the interfaces in ports.go and keeps nothing itself but the count of
// log-ins that failed, so any number of processes may serve the same pages.
package web
