// Package tracing makes OpenTelemetry spans of what becomes of a chat event: one
// of its routing, and one of each attempt.
//
// They belong to the trace that the producer named in the event's metadata, by
// a traceparent (W3C Trace Context), and the receiver of an attempt gets the
// attempt's span as its traceparent. Sampling follows the producer: an event
// without a traceparent, or with one that is not sampled, has no spans, and what
// its producer wrote is passed on as it is.
//
// The id of an event's routing span is derived from the trace and the event, so
// that an attempt finds it although days and another relay lie in between.
package tracing
