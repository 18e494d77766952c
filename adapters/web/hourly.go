package web

import (
	"html/template"
	"math"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain/audit"
)

// hourly is what became of a webhook's attempts, hour by hour without a gap.
type hourly struct {
	Hours []audit.Stats // the oldest first
	// Attempts and the rest are sums of them.
	Attempts, Succeeded, Failed, Unknown, Dead int64
	// Latest is the newest hour with a duration, nil for none.
	Latest *audit.Stats
	// Slowest is the hour whose 95th percentile is the highest, nil for none.
	Slowest *audit.Stats
}

// byHour brings a webhook's rows into the order of time, with an empty one for
// each hour in which nothing ended. The last hour is the one of now.
func byHour(rows []audit.Stats, now time.Time, hours int) *hourly {
	first := now.UTC().Truncate(time.Hour).Add(-time.Duration(hours-1) * time.Hour)
	h := &hourly{Hours: make([]audit.Stats, hours)}
	for i := range h.Hours {
		h.Hours[i].Hour = first.Add(time.Duration(i) * time.Hour)
	}
	for i := range rows {
		row := &rows[i]
		n := int(row.Hour.Sub(first) / time.Hour)
		if n < 0 || n >= hours || row.Hour.Before(first) {
			continue
		}
		h.Hours[n] = *row
		h.Attempts, h.Succeeded, h.Failed, h.Unknown, h.Dead = h.Attempts+row.Attempts, h.Succeeded+row.Succeeded, h.Failed+row.Failed, h.Unknown+row.Unknown, h.Dead+row.Dead
	}
	for i := range h.Hours {
		hour := &h.Hours[i]
		if hour.P50MS != nil {
			h.Latest = hour
		}
		if hour.P95MS != nil && (h.Slowest == nil || *hour.P95MS > *h.Slowest.P95MS) {
			h.Slowest = hour
		}
	}
	return h
}

// Rate is the share of the attempts that succeeded.
func (h *hourly) Rate() float64 {
	if h.Attempts == 0 {
		return 0
	}
	return float64(h.Succeeded) / float64(h.Attempts)
}

// Bad reports whether less than nine of ten attempts succeeded.
func (h *hourly) Bad() bool { return h.Rate() < 0.9 }

// Busy are the hours in which something ended, the newest first: what a table
// lists.
func (h *hourly) Busy() (busy []audit.Stats) {
	for i := len(h.Hours) - 1; i >= 0; i-- {
		if hour := h.Hours[i]; hour.Attempts > 0 || hour.Dead > 0 || hour.Expired > 0 || hour.Cancelled > 0 {
			busy = append(busy, hour)
		}
	}
	return busy
}

// trace is a figure that bars show as the least that is seen.
const trace = math.SmallestNonzeroFloat64

// Sparkline draws the attempts of each hour within a row of a table.
func (h *hourly) Sparkline() (template.HTML, error) { return h.bars(sparkline, nil) }

// Bars draws the attempts of each hour: succeeded, and above them the rest.
func (h *hourly) Bars() (template.HTML, error) { return h.bars(wideGraph, h.labels()) }

func (h *hourly) bars(room canvas, labels []string) (template.HTML, error) {
	n := len(h.Hours)
	good, bad, none, said := make([]float64, n), make([]float64, n), make([]float64, n), make([]string, n)
	for i := range h.Hours {
		hour := &h.Hours[i]
		good[i], bad[i], said[i] = float64(hour.Succeeded), float64(hour.Attempts-hour.Succeeded), hourTitle(hour)
		if hour.Attempts == 0 {
			none[i] = trace
		}
	}
	curves := []curve{{"good", good}, {"bad", bad}}
	if room.plain { // nothing else tells that there was an hour
		curves = append(curves, curve{"track", none})
	}
	return room.bars(h.summary(), labels, said, compact, curves...)
}

// Lines draws the median and the 95th percentile of the durations. An hour
// without any leaves a gap.
func (h *hourly) Lines() (template.HTML, error) {
	n := len(h.Hours)
	p50, p95, said := make([]float64, n), make([]float64, n), make([]string, n)
	for i := range h.Hours {
		hour := &h.Hours[i]
		p50[i], p95[i] = orNoFigure(hour.P50MS), orNoFigure(hour.P95MS)
		said[i] = hour.Hour.Format("2 Jan 15:04 UTC") + ": median " + millisOrNone(hour.P50MS) + ", p95 " + millisOrNone(hour.P95MS)
	}
	return wideGraph.lines(h.latencySummary(), h.labels(), said, millis, nil, curve{"p95", p95}, curve{"p50", p50})
}

// labels are what the axis of time calls some of the hours.
func (h *hourly) labels() []string {
	o := overviewRanges[slices.IndexFunc(overviewRanges, func(o overviewRange) bool { return o.Hours == len(h.Hours) })]
	o.Step = 1
	labels := make([]string, len(h.Hours))
	for i := range h.Hours {
		labels[i] = o.label(i, h.Hours[i].Hour)
	}
	return labels
}

// summary says in words what the bars show.
func (h *hourly) summary() string {
	if h.Attempts == 0 {
		return "No attempts in the last " + count(len(h.Hours), "hour", "hours")
	}
	text := count(int(h.Attempts), "attempt", "attempts") + " in the last " + count(len(h.Hours), "hour", "hours") + ", " + percent(h.Rate()) + " succeeded"
	if lost := h.Attempts - h.Succeeded; lost > 0 {
		text += ", " + number(lost) + " did not"
	}
	return text
}

func (h *hourly) latencySummary() string {
	return "Time to answer in the last " + count(len(h.Hours), "hour", "hours") + ": the slowest hour had a 95th percentile of " + millis(*h.Slowest.P95MS)
}

// hourTitle is what one reads who points at an hour.
func hourTitle(s *audit.Stats) string {
	text := s.Hour.Format("2 Jan 15:04 UTC") + ": " + count(int(s.Attempts), "attempt", "attempts")
	if s.Failed > 0 {
		text += ", " + number(s.Failed) + " failed"
	}
	if s.Unknown > 0 {
		text += ", " + number(s.Unknown) + " unknown"
	}
	return text
}
