// Package httpsend makes the POST of an attempt: it dials under guard, signs,
// sends, and says what came of it.
//
// It stands between the dispatcher, which decides when to send, and the
// recorder, which writes the outcome down. It promises that an attempt ends
// with its webhook's timeout, that one attempt hands a receiver at most one
// request that it may act upon, that no address is dialled which the operator's
// policy refuses, and that no receiver can make it use more memory or time than
// the limits in send.go. It does not retry, follow redirects, or decide what a
// failure means for the delivery.
//
// HTTP/1.1, with and without TLS, has an exchange of its own (http1.go): a POST
// is a write and a read on one goroutine. net/http's transport overlaps the two
// by means of two goroutines per connection, and so costs twice the CPU time and
// three times the allocations. It is used where the host chooses HTTP/2, and
// for an egress proxy (http2.go).
package httpsend
