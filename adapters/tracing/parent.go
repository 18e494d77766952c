package tracing

import (
	"context"
	"crypto/rand"
	"crypto/sha256"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/outrider-relay/outrider/domain"
)

const header = "traceparent"

// parse reads a traceparent; ok is false for one that is none, or whose trace
// is not sampled.
func parse(traceparent string) (parent trace.SpanContext, ok bool) {
	if traceparent == "" {
		return trace.SpanContext{}, false
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{header: traceparent})
	parent = trace.SpanContextFromContext(ctx)
	return parent, parent.IsValid() && parent.IsSampled()
}

// format writes a span's traceparent.
func format(span trace.SpanContext) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), span), carrier)
	return carrier[header]
}

// routingSpan is the span of an event's routing, as each relay names it.
func routingSpan(parent trace.SpanContext, event domain.EventID) trace.SpanContext {
	return parent.WithSpanID(routingID(parent, event)).WithRemote(true)
}

// routingID is derived from the trace, the producer's span and the event: two
// events of one transaction have one traceparent and two spans.
func routingID(parent trace.SpanContext, event domain.EventID) trace.SpanID {
	h := sha256.New()
	traceID, spanID := parent.TraceID(), parent.SpanID()
	h.Write(traceID[:])
	h.Write(spanID[:])
	h.Write(event[:])
	return trace.SpanID(h.Sum(nil)[:8])
}

// ids gives the ids of spans: those of routings from their context, the others
// by chance.
type ids struct{}

type idKey struct{}

// withID makes the span that begins with the context have this id.
func withID(ctx context.Context, id trace.SpanID) context.Context {
	return context.WithValue(ctx, idKey{}, id)
}

// NewIDs implements the SDK's IDGenerator.
func (g ids) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	var id trace.TraceID
	_, _ = rand.Read(id[:]) // never fails
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements the SDK's IDGenerator.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	if id, ok := ctx.Value(idKey{}).(trace.SpanID); ok {
		return id
	}
	var id trace.SpanID
	_, _ = rand.Read(id[:]) // never fails
	return id
}
