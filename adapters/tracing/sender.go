package tracing

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/relay"
)

// Sender makes a span of each attempt that another Sender makes.
type Sender struct {
	next   relay.Sender
	tracer *Tracer
}

// Sender gives a Sender that makes spans of what next sends.
func (t *Tracer) Sender(next relay.Sender) *Sender { return &Sender{next, t} }

// Send implements relay.Sender. The receiver gets the attempt's span.
func (s *Sender) Send(ctx context.Context, request relay.Request) domain.Outcome {
	parent, ok := parse(request.Traceparent)
	if !ok {
		return s.next.Send(ctx, request)
	}
	// Of the webhook only its number: a URL may carry secrets.
	under := trace.ContextWithRemoteSpanContext(context.Background(), routingSpan(parent, request.EventID))
	_, span := s.tracer.tracer.Start(under, "attempt", trace.WithSpanKind(trace.SpanKindProducer), trace.WithTimestamp(s.tracer.now()), trace.WithAttributes(
		attribute.String("http.request.method", "POST"),
		attribute.String("messaging.message.id", request.EventID.String()),
		attribute.String("outrider.event", request.Event),
		attribute.Int64("outrider.account_id", int64(request.Webhook.AccountID)),
		attribute.Int64("outrider.webhook_id", int64(request.Webhook.ID)),
		attribute.String("outrider.notification_id", request.Notification.String()),
		attribute.String("outrider.delivery_id", request.Delivery.String()),
		attribute.Int("outrider.attempt", request.Attempt),
		attribute.Int("http.request.body.size", len(request.Body)),
	))
	if request.Replay != 0 {
		span.SetAttributes(attribute.Int64("outrider.replay_id", int64(request.Replay)))
	}
	if request.Previous != domain.OutcomeNone {
		span.SetAttributes(attribute.String("outrider.previous_outcome", string(request.Previous)))
	}
	request.Traceparent = format(span.SpanContext())
	outcome := s.next.Send(ctx, request)
	kind := outcome.Kind
	if ctx.Err() != nil && kind != domain.OutcomeSucceeded {
		kind = domain.OutcomeUnknown // cut off by a stop: so it will be on record
	}
	span.SetAttributes(attribute.String("outrider.outcome", string(kind)))
	if outcome.StatusCode != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", outcome.StatusCode))
	}
	if outcome.RemoteIP != "" {
		span.SetAttributes(attribute.String("network.peer.address", outcome.RemoteIP))
	}
	if kind != domain.OutcomeSucceeded {
		span.SetAttributes(attribute.String("error.type", string(outcome.Class)))
		span.SetStatus(codes.Error, string(outcome.Class))
	}
	span.End(trace.WithTimestamp(s.tracer.now()))
	return outcome
}
