package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
	"github.com/outrider-relay/outrider/relay"
)

// The values of labels. A value that is not in its list counts as "other".
const other = "other"

var (
	routings = []string{
		string(domain.RoutingRouted), string(domain.RoutingNoSubscriber), string(domain.RoutingSkipped),
		string(domain.RoutingDuplicate), string(domain.RoutingQuarantined), other,
	}
	errorClasses = []string{
		string(domain.ErrorRefusedAddress), string(domain.ErrorDNS), string(domain.ErrorConnect), string(domain.ErrorTLS),
		string(domain.ErrorTimeout), string(domain.ErrorReset), string(domain.ErrorStatus), string(domain.ErrorBody), other,
	}
	statuses = []string{
		string(domain.DeliverySucceeded), string(domain.DeliveryDead), string(domain.DeliveryCancelled), string(domain.DeliveryExpired),
	}
	failures = []string{"fenced", "conflict", "refused", "connection"}
	breakers = []string{string(domain.BreakerOpen), string(domain.BreakerHalfOpen)}
)

// meter holds what the relay tells. All series exist from the beginning, so
// that the first failure is an increase from 0; and they are looked up once,
// not for each event.
type meter struct {
	routed        map[string]prometheus.Counter
	batchRows     prometheus.Histogram
	batchDuration prometheus.Histogram

	recordingSteps    prometheus.Histogram
	recordingDuration prometheus.Histogram
	recordingFailures map[string]prometheus.Counter

	succeeded, unknown prometheus.Counter
	failed             map[string]prometheus.Counter
	attemptDuration    prometheus.Histogram
	arrival            prometheus.Histogram
	ended              map[string]prometheus.Counter

	inFlight, waiting, bodies, overflowing, undispatched prometheus.Gauge

	breakers map[string]prometheus.Gauge
}

var (
	// latencies are from a millisecond to the longest timeout.
	latencies = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	// arrivals go on to the last retry, some three days later.
	arrivals = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200, 259200}
	sizes    = []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000}
)

func newMeter(registry prometheus.Registerer) *meter {
	m := &meter{}
	counters := func(name, help, label string, values []string) map[string]prometheus.Counter {
		vec := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		registry.MustRegister(vec)
		found := make(map[string]prometheus.Counter, len(values))
		for _, value := range values {
			found[value] = vec.WithLabelValues(value)
		}
		return found
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		registry.MustRegister(h)
		return h
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		registry.MustRegister(g)
		return g
	}
	m.routed = counters("outrider_events_routed_total", "Events whose routing decision is on record, by decision.", "routing", routings)
	m.batchRows = histogram("outrider_batch_rows", "Events in a routed batch.", sizes)
	m.batchDuration = histogram("outrider_batch_duration_seconds", "Seconds from the beginning of a batch's poll until its decisions were seen committed.", latencies)

	m.recordingSteps = histogram("outrider_recording_steps", "Steps of deliveries (starts, outcomes, waits) in a group commit, failed tries included.", sizes)
	m.recordingDuration = histogram("outrider_recording_duration_seconds", "Seconds that a group commit took, failed tries included.", latencies)
	m.recordingFailures = counters("outrider_recording_failures_total", "Group commits that failed, by reason. All but fenced are tried again or taken apart.", "reason", failures)

	attempts := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_attempts_total", Help: "Attempts whose outcome is on record, by outcome and, where they failed, by the step of the POST that failed.",
	}, []string{"outcome", "error_class"})
	registry.MustRegister(attempts)
	m.succeeded = attempts.WithLabelValues(string(domain.OutcomeSucceeded), "none")
	m.unknown = attempts.WithLabelValues(string(domain.OutcomeUnknown), "none")
	m.failed = map[string]prometheus.Counter{}
	for _, class := range errorClasses {
		m.failed[class] = attempts.WithLabelValues(string(domain.OutcomeFailed), class)
	}
	m.attemptDuration = histogram("outrider_attempt_duration_seconds", "Seconds from before the dial to the end of the response, of attempts that succeeded or failed.", latencies)
	m.arrival = histogram("outrider_arrival_seconds", "Seconds from an event's inserted_at to the end of the attempt that succeeded, by the database's clock. Replays do not count. The time of the commit is not known to the relay.", arrivals)
	m.ended = counters("outrider_deliveries_ended_total", "Deliveries that are finished, by their last status.", "status", statuses)

	m.inFlight = gauge("outrider_attempts_in_flight", "Attempts under way.")
	m.waiting = gauge("outrider_deliveries_waiting", "First deliveries in memory that wait for their attempt.")
	m.bodies = gauge("outrider_bodies_waiting_bytes", "Bytes of the bodies of first deliveries that wait in memory.")
	m.overflowing = gauge("outrider_webhooks_overflowing", "Webhooks whose new deliveries go through the due table, since memory has too many of them.")
	m.undispatched = gauge("outrider_batches_undispatched", "Routed batches of which a delivery to the relay's shards is neither started, finished nor in the due table.")
	vec := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "outrider_breakers", Help: "Webhooks whose receivers are down, by the state of their circuit breakers: open lets nothing through, half_open has its probe under way.",
	}, []string{"state"})
	registry.MustRegister(vec)
	m.breakers = map[string]prometheus.Gauge{}
	for _, state := range breakers {
		m.breakers[state] = vec.WithLabelValues(state)
	}
	return m
}

// count adds to a value's counter, or to that of all others.
func count(counters map[string]prometheus.Counter, value string) {
	if c, ok := counters[value]; ok {
		c.Inc()
	} else if c, ok := counters[other]; ok {
		c.Inc()
	}
}

// Routed implements relay.Meter.
func (m *meter) Routed(batch *outbox.Batch, took time.Duration) {
	for _, row := range batch.Rows {
		count(m.routed, string(row.Routed.Kind))
	}
	m.batchRows.Observe(float64(len(batch.Rows)))
	m.batchDuration.Observe(took.Seconds())
}

// Recorded implements relay.Meter.
func (m *meter) Recorded(steps int, took time.Duration, err error) {
	m.recordingSteps.Observe(float64(steps))
	m.recordingDuration.Observe(took.Seconds())
	switch {
	case err == nil:
	case errors.Is(err, relay.ErrFenced):
		count(m.recordingFailures, "fenced")
	case errors.Is(err, relay.ErrConflict):
		count(m.recordingFailures, "conflict")
	case errors.Is(err, relay.ErrRefused):
		count(m.recordingFailures, "refused")
	default:
		count(m.recordingFailures, "connection")
	}
}

// Ended implements relay.Meter.
func (m *meter) Ended(ends []relay.Ended) {
	for i := range ends {
		end := &ends[i]
		switch end.Outcome {
		case domain.OutcomeSucceeded:
			m.succeeded.Inc()
			m.attemptDuration.Observe(end.Took.Seconds())
		case domain.OutcomeFailed:
			count(m.failed, string(end.Class))
			m.attemptDuration.Observe(end.Took.Seconds())
		case domain.OutcomeUnknown:
			m.unknown.Inc()
		case domain.OutcomeNone, domain.OutcomeStarted:
		}
		if end.Arrived {
			m.arrival.Observe(end.Arrival.Seconds())
		}
		if end.Status != domain.DeliveryNone {
			count(m.ended, string(end.Status))
		}
	}
}

// Load implements relay.Meter.
func (m *meter) Load(load relay.Load) {
	m.inFlight.Set(float64(load.InFlight))
	m.waiting.Set(float64(load.Waiting))
	m.bodies.Set(float64(load.Bodies))
	m.overflowing.Set(float64(load.Overflowing))
	m.undispatched.Set(float64(load.Undispatched))
	m.breakers[string(domain.BreakerOpen)].Set(float64(load.Open))
	m.breakers[string(domain.BreakerHalfOpen)].Set(float64(load.HalfOpen))
}
