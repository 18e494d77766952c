package web

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
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

// First and Last are the ends of the axis of time.
func (h *hourly) First() time.Time { return h.Hours[0].Hour }

// Last is the beginning of the newest hour.
func (h *hourly) Last() time.Time { return h.Hours[len(h.Hours)-1].Hour }

// Most is the highest number of attempts in an hour.
func (h *hourly) Most() (most int64) {
	for i := range h.Hours {
		most = max(most, h.Hours[i].Attempts)
	}
	return most
}

// The charts have a unit of width for each hour and 100 of height. CSS stretches
// them and gives them colours.
const chartHeight = 100

// Bars draws the attempts of each hour: succeeded, and above them the rest.
func (h *hourly) Bars() template.HTML {
	most := h.Most()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart bars" viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" aria-label="%s">`, len(h.Hours), chartHeight, h.summary())
	for i := range h.Hours {
		hour := &h.Hours[i]
		fmt.Fprintf(&b, `<g><title>%s</title>`, hourTitle(hour))
		if hour.Attempts == 0 {
			fmt.Fprintf(&b, `<rect class="none" x="%s" y="98" width="0.76" height="2"/></g>`, decimal(float64(i)+0.12))
			continue
		}
		// One among thousands is seen.
		bad, good := barHeight(hour.Attempts-hour.Succeeded, most), barHeight(hour.Succeeded, most)
		good = min(good, chartHeight-bad)
		bar := func(class string, top, height float64) {
			if height > 0 {
				fmt.Fprintf(&b, `<rect class="%s" x="%s" y="%s" width="0.76" height="%s"/>`, class, decimal(float64(i)+0.12), decimal(top), decimal(height))
			}
		}
		bar("good", chartHeight-good, good)
		bar("bad", chartHeight-good-bad, bad)
		b.WriteString(`</g>`)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, times and our own words
}

// barHeight is a bar's height, of which something is seen where there is
// something.
func barHeight(n, most int64) float64 {
	const least = 3
	if n == 0 || most == 0 {
		return 0
	}
	return max(float64(n)*chartHeight/float64(most), least)
}

// Lines draws the median and the 95th percentile of the durations. An hour
// without any leaves a gap.
func (h *hourly) Lines() template.HTML {
	if h.Slowest == nil {
		return ""
	}
	top := *h.Slowest.P95MS
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="chart lines" viewBox="0 0 %d %d" preserveAspectRatio="none" role="img" aria-label="%s">`, len(h.Hours), chartHeight, h.latencySummary())
	line := func(class string, value func(*audit.Stats) *float64) {
		var path strings.Builder
		pen := false
		for i := range h.Hours {
			ms := value(&h.Hours[i])
			if ms == nil {
				pen = false
				continue
			}
			command := "L"
			if !pen {
				command = "M"
			}
			x, y := decimal(float64(i)+0.5), decimal(chartHeight-4-*ms*(chartHeight-8)/max(top, 0.001))
			fmt.Fprintf(&path, "%s%s %s", command, x, y)
			if lone := !pen && (i+1 == len(h.Hours) || !hasDuration(&h.Hours[i+1])); lone {
				fmt.Fprintf(&path, "L%s %s", decimal(float64(i)+0.51), y) // a dot
			}
			pen = true
		}
		fmt.Fprintf(&b, `<path class="%s" d="%s"/>`, class, path.String())
	}
	line("p95", func(s *audit.Stats) *float64 { return s.P95MS })
	line("p50", func(s *audit.Stats) *float64 { return s.P50MS })
	for i := range h.Hours {
		if hour := &h.Hours[i]; hasDuration(hour) {
			fmt.Fprintf(&b, `<rect class="point" x="%d" y="0" width="1" height="%d"><title>%s: median %s, p95 %s</title></rect>`,
				i, chartHeight, hour.Hour.Format("02 Jan 15:04 UTC"), millis(*hour.P50MS), millis(*hour.P95MS))
		}
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, times and our own words
}

func hasDuration(s *audit.Stats) bool { return s.P50MS != nil && s.P95MS != nil }

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
	text := s.Hour.Format("02 Jan 15:04 UTC") + ": " + count(int(s.Attempts), "attempt", "attempts")
	if s.Failed > 0 {
		text += ", " + number(s.Failed) + " failed"
	}
	if s.Unknown > 0 {
		text += ", " + number(s.Unknown) + " unknown"
	}
	return text
}

// decimal is a number in a drawing.
func decimal(x float64) string { return strconv.FormatFloat(x, 'f', -1, 32) }
