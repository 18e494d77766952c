package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-relay/outrider/relay"
)

var (
	buildInfo   = prometheus.NewDesc("outrider_build_info", "1, with the version of the program.", []string{"version"}, nil)
	relayState  = prometheus.NewDesc("outrider_relay_state", "1 for what the relay is doing: active has a part of the work, standby has none, since others have all, starting has no database it can work on.", []string{"state"}, nil)
	relayShards = prometheus.NewDesc("outrider_shards", "Shards of webhooks that the relay has. Those of all relays are 64, or some webhooks get nothing.", nil, nil)
	relayTails  = prometheus.NewDesc("outrider_tails", "1 where the relay reads the outbox and routes, which one relay does for all.", nil, nil)
	relaySends  = prometheus.NewDesc("outrider_relay_sends", "1 where the relay makes POSTs, 0 where it was started with --no-send.", nil, nil)
	beatAge     = prometheus.NewDesc("outrider_sign_of_life_age_seconds", "Seconds since the last sign of life that the database took: a relay gives one each half second, begins no POST after 2, and loses its part of the work after 3.", nil, nil)
)

// process collects what the process knows of itself.
type process struct {
	config Config
	beat   func() *time.Time
}

func newProcess(config Config, beat func() *time.Time) *process { return &process{config, beat} }

// Describe implements prometheus.Collector.
func (p *process) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{buildInfo, relayState, relayShards, relayTails, relaySends, beatAge} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (p *process) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(buildInfo, prometheus.GaugeValue, 1, p.config.Version)
	state := p.config.State()
	for s := relay.Starting; s <= relay.Stopped; s++ {
		ch <- prometheus.MustNewConstMetric(relayState, prometheus.GaugeValue, truth(s == state), s.String())
	}
	share := p.config.Share()
	ch <- prometheus.MustNewConstMetric(relayShards, prometheus.GaugeValue, float64(share.Shards.Count()))
	ch <- prometheus.MustNewConstMetric(relayTails, prometheus.GaugeValue, truth(share.Tail))
	ch <- prometheus.MustNewConstMetric(relaySends, prometheus.GaugeValue, truth(!p.config.NoSend))
	if at := p.beat(); at != nil && (state == relay.Active || state == relay.Standby) {
		ch <- prometheus.MustNewConstMetric(beatAge, prometheus.GaugeValue, time.Since(*at).Seconds())
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
