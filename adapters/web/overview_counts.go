package web

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/outrider-relay/outrider/domain/audit"
)

// countedStep is what there was in a step of an overview.
type countedStep struct {
	at   time.Time
	span audit.Span
	// left are the deliveries that had not ended when it was over.
	left int64
	// most and fewest are how many relays were at work at one time.
	most, fewest int
}

// countedSteps are the steps of a range, with their names on an axis.
type countedSteps struct {
	overviewRange
	steps  []countedStep
	labels []string
}

// countSteps counts, in steps from since on to now. What was left is counted
// back from what is left now: less what began behind a step, and more what ended.
func countSteps(figures *shownFigures, o overviewRange, since, now time.Time) *countedSteps {
	c := &countedSteps{o, make([]countedStep, o.spans()), make([]string, o.spans())}
	step := time.Duration(o.Step) * time.Hour
	left := figures.pending
	for i := len(c.steps) - 1; i >= 0; i-- {
		s := &c.steps[i]
		s.at = since.Add(time.Duration(i) * step)
		c.labels[i] = o.label(i, s.at)
		if k := slices.IndexFunc(figures.spans, func(span audit.Span) bool { return span.From.Equal(s.at) }); k >= 0 {
			s.span = figures.spans[k]
		}
		s.left = max(0, left)
		left -= s.span.Scheduled - s.span.Ended()
		end := s.at.Add(step)
		if end.After(now) {
			end = now
		}
		s.most, s.fewest = atWork(figures.relays, s.at, end)
	}
	return c
}

// atWork is how many relays were at work at one time, between two.
func atWork(relays []audit.RelayTime, from, to time.Time) (most, fewest int) {
	type change struct {
		at time.Time
		by int
	}
	n := 0
	var changes []change
	for _, r := range relays {
		if !r.From.Before(to) || !r.To.IsZero() && !r.To.After(from) {
			continue
		}
		if r.From.After(from) {
			changes = append(changes, change{r.From, 1})
		} else {
			n++
		}
		if !r.To.IsZero() && r.To.Before(to) {
			changes = append(changes, change{r.To, -1})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return a.at.Compare(b.at) })
	most, fewest = n, n
	for _, c := range changes {
		n += c.by
		most, fewest = max(most, n), min(fewest, n)
	}
	return most, fewest
}

// values gives a curve of the steps, and its highest value.
func (c *countedSteps) values(of func(*countedStep) int64) (values []float64, most int64) {
	values = make([]float64, len(c.steps))
	for i := range c.steps {
		v := of(&c.steps[i])
		values[i], most = float64(v), max(most, v)
	}
	return values, most
}

// rows are the figures of the steps, the newest first.
func (c *countedSteps) rows(figures func(*countedStep) []int64) (rows []chartRow) {
	for i := range slices.Backward(c.steps) {
		row := chartRow{At: c.steps[i].at}
		for _, n := range figures(&c.steps[i]) {
			row.Figures = append(row.Figures, number(n))
		}
		rows = append(rows, row)
	}
	return rows
}

// now is the step under way.
func (c *countedSteps) now() *countedStep { return &c.steps[len(c.steps)-1] }

// drawCounts adds the charts of what was not finished, of webhooks that failed
// and, of all accounts, of relays.
func (s *shownOverview) drawCounts(figures *shownFigures, since, now time.Time) error {
	c := countSteps(figures, s.Range, since, now)
	charts := []func() (shownChart, error){c.backlog, c.failing}
	if s.All {
		charts = append(charts, c.relays)
	}
	for _, draw := range charts {
		chart, err := draw()
		if err != nil {
			return err
		}
		s.Charts = append(s.Charts, chart)
	}
	return nil
}

// backlog draws the deliveries that had not ended.
func (c *countedSteps) backlog() (chart shownChart, err error) {
	values, most := c.values(func(s *countedStep) int64 { return s.left })
	chart = shownChart{
		Title: "Deliveries not finished", Columns: []string{"Not finished then", "Scheduled", "Ended"},
		Summary: fmt.Sprintf("%s now, %s at most at the end of %s.", number(c.now().left), number(most), c.some()),
		Legend:  []legendEntry{{"current", "under way or waiting, at the end of each " + c.per()}},
		Rows:    c.rows(func(s *countedStep) []int64 { return []int64{s.left, s.span.Scheduled, s.span.Ended()} }),
	}
	chart.Drawing, err = drawLines(chart.Title+". "+chart.Summary, c.labels, whole, nil, curve{"current", values})
	return chart, err
}

// failing draws the webhooks of which nothing but failure came.
func (c *countedSteps) failing() (chart shownChart, err error) {
	values, most := c.values(func(s *countedStep) int64 { return s.span.Failing })
	chart = shownChart{
		Title: "Failing webhooks per " + c.per(), Columns: []string{"Failing", "With attempts"},
		Summary: fmt.Sprintf("%s of late, %s at most in %s.", number(c.now().span.Failing), number(most), c.some()),
		Legend:  []legendEntry{{"bad", "webhooks with attempts of which none succeeded"}},
		Rows:    c.rows(func(s *countedStep) []int64 { return []int64{s.span.Failing, s.span.Tried} }),
	}
	chart.Drawing, err = drawBars(chart.Title+". "+chart.Summary, c.labels, whole, curve{"bad", values})
	return chart, err
}

// relays draws how many were at work.
func (c *countedSteps) relays() (chart shownChart, err error) {
	most, highest := c.values(func(s *countedStep) int64 { return int64(s.most) })
	fewest, _ := c.values(func(s *countedStep) int64 { return int64(s.fewest) })
	chart = shownChart{
		Title: "Relays at work", Columns: []string{"Most at one time", "Fewest"},
		Summary: fmt.Sprintf("%s at least and %s at most at one time in %s.", number(int64(slices.Min(fewest))), number(highest), c.Label),
		Legend:  []legendEntry{{"current", "most at one time"}, {"least", "fewest"}},
		Rows:    c.rows(func(s *countedStep) []int64 { return []int64{int64(s.most), int64(s.fewest)} }),
	}
	top := float64(graphLines-1) * math.Ceil(float64(max(1, highest))/(graphLines-1)) // so that each line is of a whole number
	chart.Drawing, err = drawLines(chart.Title+". "+chart.Summary, c.labels, whole, &top, curve{"current", most}, curve{"least", fewest})
	return chart, err
}

// some is one of the steps in words.
func (c *countedSteps) some() string {
	if c.Step > 1 {
		return c.per()
	}
	return "an hour"
}

// whole is compact for what there are no parts of.
func whole(v float64) string {
	if v < 10 && v != math.Round(v) {
		return ""
	}
	return compact(v)
}
