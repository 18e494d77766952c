package tracing

import (
	"regexp"
	"testing"
)

// FuzzParent: a trace context that is followed is one of the form of W3C Trace
// Context, and what is told of it names the same trace and span.
func FuzzParent(f *testing.F) {
	for _, value := range []string{
		"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", "00--b7ad6b7169203331-01", "\r\n",
	} {
		f.Add(value)
	}
	form := regexp.MustCompile(`\A\s*[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}`)
	f.Fuzz(func(t *testing.T, value string) {
		parent, ok := parse(value)
		if !ok {
			return
		}
		parts := form.FindStringSubmatch(value)
		if len(parts) == 0 || parts[1] != parent.TraceID().String() || parts[2] != parent.SpanID().String() || !parent.IsSampled() {
			t.Fatalf("%q is taken for %v", value, parent)
		}
		if again, ok := parse(format(parent)); !ok || again.TraceID() != parent.TraceID() || again.SpanID() != parent.SpanID() {
			t.Fatalf("%q is written as %q", value, format(parent))
		}
	})
}
