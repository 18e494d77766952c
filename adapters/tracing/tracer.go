package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// Config says who makes the spans.
type Config struct {
	// Version is the program's, Name the relay's.
	Version, Name string
	// Logger hears of spans that could not be exported.
	Logger *slog.Logger
	// Now is the relay's clock; time.Now if nil.
	Now func() time.Time
}

// Tracer makes spans and exports them by OTLP over HTTP, as the variables
// OTEL_EXPORTER_OTLP_… of the OpenTelemetry specification say. It implements
// relay.Tracer.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
	now      func() time.Time
}

var (
	_ relay.Tracer = (*Tracer)(nil)
	_ relay.Sender = (*Sender)(nil)
)

// New makes a tracer. Nothing is connected yet; where nobody takes the spans,
// they are dropped, and the relay does not wait.
func New(ctx context.Context, config Config) (*Tracer, error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the exporter of traces: %w", err)
	}
	// Later ones count: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.
	of, err := resource.New(ctx,
		resource.WithAttributes(
			attribute.String("service.name", "outrider"),
			attribute.String("service.version", config.Version),
			attribute.String("service.instance.id", config.Name),
		),
		resource.WithTelemetrySDK(),
		resource.WithFromEnv(),
	)
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	if config.Logger != nil {
		// The SDK knows one place for all its errors.
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
			config.Logger.Warn("exporting spans failed; they are dropped", "error", err)
		}))
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter),
		sdk.WithResource(of),
		sdk.WithIDGenerator(ids{}),
		// What has no parent is not asked for here; this is so that nothing
		// else ever begins a trace.
		sdk.WithSampler(sdk.ParentBased(sdk.NeverSample())),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer("github.com/outrider-relay/outrider", trace.WithInstrumentationVersion(config.Version)), now: config.Now}, nil
}

// Shutdown exports what is left.
func (t *Tracer) Shutdown(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// Routed implements relay.Tracer: a span for each event of a batch whose
// producer sampled its trace, from the beginning of the poll that found it.
func (t *Tracer) Routed(batch *outbox.Batch) {
	for _, row := range batch.Rows {
		parent, ok := parse(domain.Traceparent(row.Metadata))
		if !ok {
			continue
		}
		ctx := withID(trace.ContextWithRemoteSpanContext(context.Background(), parent), routingID(parent, row.ID))
		_, span := t.tracer.Start(ctx, "route", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(batch.Began), trace.WithAttributes(
			attribute.String("messaging.system", "outrider"),
			attribute.String("messaging.operation.type", "process"),
			attribute.String("messaging.destination.name", outbox.Topic),
			attribute.String("messaging.message.id", row.ID.String()),
			attribute.String("outrider.event", row.Routed.EventName),
			attribute.Int64("outrider.account_id", int64(row.AccountID)),
			attribute.Int64("outrider.event_seq", row.Seq),
			attribute.String("outrider.routing", string(row.Routed.Kind)),
			attribute.Int("outrider.deliveries", len(row.Routed.Targets)),
			attribute.Int64("outrider.batch", batch.No),
		))
		if row.Routed.Reason != "" {
			span.SetAttributes(attribute.String("outrider.reason", row.Routed.Reason))
		}
		if row.Routed.Kind == domain.RoutingQuarantined {
			span.SetStatus(codes.Error, "quarantined: "+row.Routed.Reason)
		}
		span.End(trace.WithTimestamp(t.now()))
	}
}
