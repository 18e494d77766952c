package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// spanCollector takes spans as a collector of OpenTelemetry does.
type spanCollector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*otlp.Span
	of    map[string]string // the newest resource's attributes
}

func newSpanCollector(t *testing.T) *spanCollector {
	t.Helper()
	c := &spanCollector{of: map[string]string{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range request.GetResourceSpans() {
			for _, a := range resource.GetResource().GetAttributes() {
				c.of[a.GetKey()] = a.GetValue().GetStringValue()
			}
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

// named gives the spans with a name, in the order of their beginnings.
func (c *spanCollector) named(name string) []*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*otlp.Span
	for _, span := range c.spans {
		if span.GetName() == name {
			found = append(found, span)
		}
	}
	slices.SortFunc(found, func(a, b *otlp.Span) int {
		return int(int64(a.GetStartTimeUnixNano()) - int64(b.GetStartTimeUnixNano())) //nolint:gosec // times of this test
	})
	return found
}

func attributeOf(span *otlp.Span, key string) string {
	for _, a := range span.GetAttributes() {
		if a.GetKey() == key {
			return strings.Trim(strings.SplitN(a.GetValue().String(), ":", 2)[1], `" `)
		}
	}
	return ""
}

// traceReceiver remembers the traceparents that arrive, and fails as often as it
// is told.
type traceReceiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []string
	failed int
}

func newTraceReceiver(t *testing.T, fails int) *traceReceiver {
	t.Helper()
	c := &traceReceiver{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.got = append(c.got, r.Header.Get("traceparent"))
		if c.failed < fails {
			c.failed++
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *traceReceiver) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.got)
}

const (
	traceOfTest     = "0af7651916cd43dd8448eb211c80319c"
	spanOfTest      = "b7ad6b7169203331"
	sampledParent   = "00-" + traceOfTest + "-" + spanOfTest + "-01"
	unsampledParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
	insertTraced    = `INSERT INTO outbox.events (account_id, event, payload, metadata) VALUES (1, 'message_created', '{}', json_build_object('traceparent', $1::text))`
)

// TestOneTraceFromTheProducerToTheReceiver: routing and both attempts are in the
// producer's trace, although another relay makes the second one, and the
// receiver gets the span of each.
func TestOneTraceFromTheProducerToTheReceiver(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver, spans := newTraceReceiver(t, 1), newSpanCollector(t)
	register(t, db.SQL, 1, receiver.URL, nil)
	env := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + spans.URL, "OTEL_RESOURCE_ATTRIBUTES=deployment.environment.name=test"}
	first := startProcessWith(t, db.DSN, env, "serve", "--allow-unsafe")
	run(t, db.SQL, insertTraced, sampledParent)
	until(t, "a failed attempt", func() (bool, string) {
		n := query[int](t, db.SQL, `SELECT count(*) FROM audit.attempts WHERE outcome = 'failed'`)
		return n == 1, fmt.Sprint(n)
	})
	first.signal(syscall.SIGTERM) // exports what it has
	second := startProcessWith(t, db.DSN, env, "serve", "--allow-unsafe")
	awaitSucceeded(t, db.SQL, 1)
	second.signal(syscall.SIGTERM)

	routed, attempts, got := spans.named("route"), spans.named("attempt"), receiver.all()
	if len(routed) != 1 || len(attempts) != 2 || len(got) != 2 {
		t.Fatalf("%d routings and %d attempts have a span, %d POSTs arrived", len(routed), len(attempts), len(got))
	}
	if trace, parent := hex.EncodeToString(routed[0].GetTraceId()), hex.EncodeToString(routed[0].GetParentSpanId()); trace != traceOfTest || parent != spanOfTest {
		t.Errorf("the routing is in trace %s below %s", trace, parent)
	}
	if routing, event := attributeOf(routed[0], "outrider.routing"), attributeOf(routed[0], "messaging.message.id"); routing != "routed" ||
		event != query[string](t, db.SQL, `SELECT event_id FROM audit.events`) {
		t.Errorf("the routing of %s is %s", event, routing)
	}
	for i, attempt := range attempts {
		trace, parent, id := hex.EncodeToString(attempt.GetTraceId()), hex.EncodeToString(attempt.GetParentSpanId()), hex.EncodeToString(attempt.GetSpanId())
		if trace != traceOfTest || parent != hex.EncodeToString(routed[0].GetSpanId()) {
			t.Errorf("attempt %d is in trace %s below %s, not below the routing", i+1, trace, parent)
		}
		if want := "00-" + traceOfTest + "-" + id + "-01"; got[i] != want {
			t.Errorf("the receiver of attempt %d got %s, want %s", i+1, got[i], want)
		}
		outcome, status := attributeOf(attempt, "outrider.outcome"), attributeOf(attempt, "http.response.status_code")
		if want := []string{"failed 500", "succeeded 204"}[i]; outcome+" "+status != want {
			t.Errorf("attempt %d: %s %s, want %s", i+1, outcome, status, want)
		}
		if failed := attempt.GetStatus().GetCode() == otlp.Status_STATUS_CODE_ERROR; failed != (i == 0) {
			t.Errorf("attempt %d has the status %v", i+1, attempt.GetStatus())
		}
		if attempt.GetEndTimeUnixNano() < attempt.GetStartTimeUnixNano() {
			t.Errorf("attempt %d ends before it begins", i+1)
		}
		if strings.Contains(attempt.String(), receiver.URL) {
			t.Errorf("a span has the webhook's URL: %s", attempt)
		}
	}
	if spans.of["service.name"] != "outrider" || spans.of["deployment.environment.name"] != "test" {
		t.Errorf("the spans are of %v", spans.of)
	}
}

// TestSamplingFollowsTheProducer: what its producer did not sample has no span,
// and its traceparent goes through as it is, as all do where tracing is off.
func TestSamplingFollowsTheProducer(t *testing.T) {
	t.Parallel()
	spans := newSpanCollector(t)
	for name, test := range map[string]struct {
		env    []string
		insert string
		args   []any
		want   string
	}{
		"not sampled": {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + spans.URL}, insertTraced, []any{unsampledParent}, unsampledParent},
		"no parent":   {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + spans.URL}, insertOne, nil, ""},
		"off":         {nil, insertTraced, []any{sampledParent}, sampledParent},
		"disabled":    {[]string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + spans.URL, "OTEL_SDK_DISABLED=true"}, insertTraced, []any{sampledParent}, sampledParent},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := pgtest.New(t)
			receiver := newTraceReceiver(t, 0)
			register(t, db.SQL, 1, receiver.URL, nil)
			p := startProcessWith(t, db.DSN, test.env, "serve", "--allow-unsafe")
			run(t, db.SQL, test.insert, test.args...)
			awaitSucceeded(t, db.SQL, 1)
			p.signal(syscall.SIGTERM) // exports what it has
			if got := receiver.all(); len(got) != 1 || got[0] != test.want {
				t.Errorf("the receiver got %q, want %q", got, test.want)
			}
			if n := len(spans.named("route")) + len(spans.named("attempt")); n != 0 {
				t.Errorf("%d spans were made", n)
			}
		})
	}
}

// A collector that takes nothing costs spans, never deliveries.
func TestACollectorThatIsDown(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	receiver := newTraceReceiver(t, 0)
	register(t, db.SQL, 1, receiver.URL, nil)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	p := startProcessWith(t, db.DSN, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + down.URL}, "serve", "--allow-unsafe")
	run(t, db.SQL, insertTraced, sampledParent)
	awaitSucceeded(t, db.SQL, 1)
	p.signal(syscall.SIGTERM)
	if code := p.ProcessState.ExitCode(); code != exitDone || !strings.Contains(p.log.String(), "exporting spans failed") {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
}

func TestTracingAsked(t *testing.T) {
	t.Parallel()
	for variables, want := range map[string]string{
		"":                    "false",
		"OTEL_SERVICE_NAME=x": "false",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318":                                                                     "true",
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://otel.example/v1/traces":                                                     "true",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_TRACES_EXPORTER=otlp": "true",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_TRACES_EXPORTER=none":                                           "false",
		"OTEL_EXPORTER_OTLP_ENDPOINT=127.0.0.1:4318":                                                                            "is not a URL",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317 OTEL_EXPORTER_OTLP_PROTOCOL=grpc":                                    "port 4318",
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_TRACES_EXPORTER=zipkin":                                         "zipkin",
	} {
		env := map[string]string{}
		for variable := range strings.FieldsSeq(variables) {
			name, value, _ := strings.Cut(variable, "=")
			env[name] = value
		}
		asked, problems := tracingAsked(func(name string) string { return env[name] })
		if got := strings.Join(append(problems, fmt.Sprint(asked)), "; "); !strings.Contains(got, want) || (len(problems) > 0) != (want != "true" && want != "false") {
			t.Errorf("%s: %s, want %s", variables, got, want)
		}
	}
}
