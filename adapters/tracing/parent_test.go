package tracing

import (
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/outrider-relay/outrider/domain"
)

const sampled = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestParse(t *testing.T) {
	t.Parallel()
	for traceparent, want := range map[string]bool{
		sampled: true,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00":     false, // not sampled
		"00-00000000000000000000000000000000-b7ad6b7169203331-01":     false,
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01":     false,
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":     false,
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01":     false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n": false,
		"": false, "none": false,
	} {
		parent, ok := parse(traceparent)
		if ok != want {
			t.Errorf("%q: %v, want %v", traceparent, ok, want)
		}
		if ok && format(parent) != traceparent {
			t.Errorf("%q becomes %q", traceparent, format(parent))
		}
	}
}

// Each relay names an event's routing span alike, and each event's otherwise.
func TestRoutingID(t *testing.T) {
	t.Parallel()
	parent, ok := parse(sampled)
	other, also := parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332-01")
	if !ok || !also {
		t.Fatal("these are traceparents")
	}
	one, two := domain.EventID{1}, domain.EventID{2}
	seen := map[trace.SpanID]bool{}
	for _, id := range []trace.SpanID{routingID(parent, one), routingID(parent, two), routingID(other, one), parent.SpanID()} {
		if seen[id] || !id.IsValid() {
			t.Errorf("%s is no id of its own", id)
		}
		seen[id] = true
	}
	if routingID(parent, one) != routingSpan(parent, one).SpanID() || routingSpan(parent, one).TraceID() != parent.TraceID() {
		t.Error("the routing span of an attempt is another one")
	}
}
