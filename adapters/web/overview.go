package web

import (
	"context"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// overviewRoutes are how an account does, and how all do.
func overviewRoutes() []route {
	return []route{
		{Route{Method: "GET", Pattern: "/accounts/{account}", Permission: domain.Read}, (*pages).overview},
		{Route{Method: "GET", Pattern: "/overview", Permission: domain.Read, AllAccounts: true}, (*pages).overview},
		{Route{Method: "GET", Pattern: "/accounts/{account}/live", Permission: domain.Read, Stream: true}, (*pages).overviewLive},
		{Route{Method: "GET", Pattern: "/overview/live", Permission: domain.Read, AllAccounts: true, Stream: true}, (*pages).overviewLive},
	}
}

// overviewRange is how far back an overview goes, and in what steps.
type overviewRange struct {
	Name, Label string
	Hours, Step int
	// layout is how a step is called on an axis, where its hour, counted from
	// 1970 on, is one of every so many.
	layout string
	every  int64
}

// label is what an axis calls its step i, which begins at a time; most have no
// name there.
func (o *overviewRange) label(i int, at time.Time) string {
	if at.Unix()/3600%o.every != 0 || i >= o.spans()-o.spans()/12 { // the last would stick out
		return ""
	}
	return at.Format(o.layout)
}

// per is a step in words.
func (o *overviewRange) per() string {
	if o.Step > 1 {
		return count(o.Step, "hour", "hours")
	}
	return "hour"
}

// spans is how many steps there are.
func (o *overviewRange) spans() int { return o.Hours / o.Step }

var overviewRanges = []overviewRange{
	{"24h", "24 hours", 24, 1, "15:04", 4},
	{"7d", "7 days", 168, 6, "2 Jan", 48},
}

// shownOverview is how an account does, or all.
type shownOverview struct {
	All    bool
	Path   string
	Range  overviewRange
	Ranges []overviewRange
	Charts []shownChart
	// Delivered, Ended and the rest are of the whole range.
	Delivered, GivenUp, Attempts int64
	SuccessRate                  *float64
	Pending                      int64
	Backlog                      audit.Backlog
	Webhooks                     []shownHealth
	// Unshown is how many webhooks there are beside those.
	Unshown int
	Relays  []shownRelay
}

// shownChart is a drawing with what it shows in words and figures.
type shownChart struct {
	// ID begins the ids of its parts.
	ID             string
	Title, Summary string
	Drawing        template.HTML
	Legend         []legendEntry
	Columns        []string
	Rows           []chartRow
}

// legendEntry is a curve's name; Class is that of its colour.
type legendEntry struct{ Class, Label string }

// chartRow are the figures of a step.
type chartRow struct {
	At      time.Time
	Figures []string
}

// shownHealth is how a webhook does.
type shownHealth struct {
	audit.Health
	Name  string
	Shown statusOf
	// All says that it stands among those of all accounts.
	All bool
}

// PartID is the id of its row.
func (h *shownHealth) PartID() string { return "w-" + strconv.FormatInt(int64(h.WebhookID), 10) }

// Failing says that its last attempt did not succeed.
func (h *shownHealth) Failing() bool { return h.ConsecutiveFailures > 0 }

// healthShown is how many webhooks an overview lists.
const healthShown = 50

// overviewEvery is how long after a look at an overview the next one is taken
// though nothing was written: the statistics come later than what they add up.
const overviewEvery = 5 * time.Second

// overview shows how an account does or, where the path has none, how all do.
func (p *pages) overview(w http.ResponseWriter, r *request) error {
	span, err := rangeOf(r)
	if err != nil {
		return err
	}
	shown, err := p.readOverview(r.Context(), r.account, span)
	if err != nil {
		return err
	}
	return p.render(w, r, http.StatusOK, "overview", &view{Title: "Overview", Nav: "overview", Scripts: []string{"live.js"}, Styles: []string{"history.css"}, Data: shown})
}

// overviewLive keeps an overview up to date.
func (p *pages) overviewLive(w http.ResponseWriter, r *request) error {
	span, err := rangeOf(r)
	if err != nil {
		return err
	}
	account := r.account
	return p.stream(w, r, overviewPath(account)+"?"+span.Name, subject{every: overviewEvery, rest: figuresFresh, read: func(ctx context.Context) ([]fragment, error) {
		shown, err := p.readOverview(ctx, account, span)
		if err != nil {
			return nil, err
		}
		return p.overviewParts(shown)
	}})
}

// rangeOf is the range of time that is asked for.
func rangeOf(r *request) (overviewRange, error) {
	name := r.URL.Query().Get("range")
	if name == "" {
		return overviewRanges[0], nil
	}
	i := slices.IndexFunc(overviewRanges, func(o overviewRange) bool { return o.Name == name })
	if i < 0 {
		return overviewRange{}, errNotFound
	}
	return overviewRanges[i], nil
}

// overviewPath is where the overview of an account is or, with 0, of all.
func overviewPath(account domain.AccountID) string {
	if account == 0 {
		return "/overview"
	}
	return accountPath(account, "")
}

// readOverview reads how an account does or, with 0, how all do.
func (p *pages) readOverview(ctx context.Context, account domain.AccountID, span overviewRange) (*shownOverview, error) {
	shown := &shownOverview{All: account == 0, Path: overviewPath(account), Range: span, Ranges: overviewRanges}
	step := time.Duration(span.Step) * time.Hour
	now := p.Now().UTC()
	since := now.Truncate(step).Add(-time.Duration(span.spans()-1) * step)
	figures, err := p.figures.of(ctx, account, span, since)
	if err != nil {
		return nil, err
	}
	shown.Backlog, shown.Pending = figures.backlog, max(0, figures.pending)
	if err := shown.draw(figures.spans, since, step); err != nil {
		return nil, err
	}
	if err := shown.drawCounts(&figures, since, now); err != nil {
		return nil, err
	}
	for i := range shown.Charts {
		shown.Charts[i].ID = "chart-" + strconv.Itoa(i)
	}
	if err := p.listHealth(ctx, account, shown, figures.health); err != nil {
		return nil, err
	}
	if shown.All {
		if shown.Relays, err = p.readRelays(ctx, false); err != nil {
			return nil, err
		}
	}
	return shown, nil
}

// overviewParts are the parts of an overview, of which a reader gets those that
// changed. What people open, scroll and stand on is around them: a chart's table
// stays open while its figures come anew.
func (p *pages) overviewParts(shown *shownOverview) (parts []fragment, err error) {
	add := func(block, id string, data any) {
		if err == nil {
			var made fragment
			made, err = p.part("overview", block, id, data)
			parts = append(parts, made)
		}
	}
	add("tiles", "tiles", shown)
	for i := range shown.Charts {
		chart := &shown.Charts[i]
		for _, block := range []string{"summary", "drawing", "figures"} {
			add(block, chart.ID+"-"+block, chart)
		}
	}
	for i := range shown.Webhooks {
		add("hook", shown.Webhooks[i].PartID(), &shown.Webhooks[i])
	}
	add("unshown", "unshown", shown)
	if err != nil {
		return nil, err
	}
	relays, err := p.relayParts("overview", shown.Relays)
	return append(parts, relays...), err
}

// listHealth lists webhooks, those that fail first: of an account all, of all
// accounts those.
func (p *pages) listHealth(ctx context.Context, account domain.AccountID, shown *shownOverview, health []audit.Health) error {
	var names []hookName
	if !shown.All {
		var err error
		if names, err = p.hookNames(ctx, account); err != nil {
			return err
		}
	}
	health = slices.Clone(health)
	slices.SortStableFunc(health, func(a, b audit.Health) int {
		if failing := (a.ConsecutiveFailures > 0) != (b.ConsecutiveFailures > 0); failing {
			if a.ConsecutiveFailures > 0 {
				return -1
			}
			return 1
		}
		return a.FailingSince.Compare(b.FailingSince)
	})
	if len(health) > healthShown {
		shown.Unshown = len(health) - healthShown
		health = health[:healthShown]
	}
	for i := range health {
		shown.Webhooks = append(shown.Webhooks, shownHealth{health[i], nameIn(names, health[i].WebhookID), webhookStatus(&health[i]), shown.All})
	}
	return nil
}

// webhookStatus is how a webhook is, in a word.
func webhookStatus(h *audit.Health) statusOf {
	switch {
	case h.State == domain.WebhookDisabled:
		return statusOf{"Disabled", "bad", "⊘"}
	case h.State == domain.WebhookPaused:
		return statusOf{"Paused", "waiting", "‖"}
	case h.Breaker == domain.BreakerOpen:
		return statusOf{"Down", "bad", "✗"}
	case h.ConsecutiveFailures > 0:
		return statusOf{"Failing", "bad", "✗"}
	default:
		return statusOf{"Enabled", "good", "✓"}
	}
}

// draw makes the charts of spans that begin at since.
func (s *shownOverview) draw(spans []audit.Span, since time.Time, step time.Duration) error {
	n := s.Range.spans()
	labels, times := make([]string, n), make([]time.Time, n)
	curves := make([][]float64, 6) // delivered, not, rate, p50, p95, p99
	for k := range curves {
		curves[k] = make([]float64, n)
	}
	rows := make([][3]chartRow, n)
	byTime := map[time.Time]*audit.Span{}
	for i := range spans {
		byTime[spans[i].From] = &spans[i]
	}
	for i := range n {
		at := since.Add(time.Duration(i) * step)
		times[i] = at
		labels[i] = s.Range.label(i, at)
		span := byTime[at]
		if span == nil {
			span = &audit.Span{}
		}
		lost := span.Dead + span.Expired + span.Cancelled
		s.Delivered += span.Succeeded
		s.GivenUp += lost
		s.Attempts += span.Attempts()
		rate, rateText := noFigure(), "–"
		if attempts := span.Attempts(); attempts > 0 {
			share := float64(span.Succeeded) / float64(attempts)
			rate, rateText = 100*share, percent(share)
		}
		for k, v := range []float64{float64(span.Succeeded), float64(lost), rate, orNoFigure(span.P50MS), orNoFigure(span.P95MS), orNoFigure(span.P99MS)} {
			curves[k][i] = v
		}
		rows[i] = [3]chartRow{
			{at, []string{number(span.Succeeded), number(lost)}},
			{at, []string{rateText, number(span.Attempts())}},
			{at, []string{millisOrNone(span.P50MS), millisOrNone(span.P95MS), millisOrNone(span.P99MS)}},
		}
	}
	if s.Attempts > 0 {
		share := float64(s.Delivered) / float64(s.Attempts)
		s.SuccessRate = &share
	}
	hundred := 100.0
	charts := []shownChart{
		{
			Title: "Deliveries per " + s.Range.per(), Columns: []string{"Delivered", "Not delivered"},
			Summary: fmt.Sprintf("%s delivered, %s not, in %s.", number(s.Delivered), number(s.GivenUp), s.Range.Label),
			Legend:  []legendEntry{{"good", "delivered"}, {"bad", "given up, expired or cancelled"}},
		},
		{Title: "Success rate of attempts", Columns: []string{"Rate", "Attempts"}, Summary: rateSummary(s), Legend: []legendEntry{{"current", "share of attempts that succeeded"}}},
		{
			Title: "Duration of attempts", Columns: []string{"p50", "p95", "p99"},
			Summary: latencySummary(spans),
			Legend:  []legendEntry{{"p50", "p50, the median"}, {"p95", "p95"}, {"p99", "p99"}},
		},
	}
	var err error
	for i := range charts {
		c := &charts[i]
		for k := range rows { // the newest first
			c.Rows = append(c.Rows, rows[len(rows)-1-k][i])
		}
		title := c.Title + ". " + c.Summary
		switch i {
		case 0:
			c.Drawing, err = drawBars(title, labels, compact, curve{"good", curves[0]}, curve{"bad", curves[1]})
		case 1:
			c.Drawing, err = drawLines(title, labels, func(v float64) string { return compact(v) + " %" }, &hundred, curve{"current", curves[2]})
		default:
			c.Drawing, err = drawLines(title, labels, millis, nil, curve{"p50", curves[3]}, curve{"p95", curves[4]}, curve{"p99", curves[5]})
		}
		if err != nil {
			return err
		}
	}
	s.Charts = charts
	return nil
}

func rateSummary(s *shownOverview) string {
	if s.SuccessRate == nil {
		return "No attempt ended."
	}
	return fmt.Sprintf("%s of %s succeeded.", percent(*s.SuccessRate), count(int(s.Attempts), "attempt", "attempts"))
}

func latencySummary(spans []audit.Span) string {
	for i := range slices.Backward(spans) { // in the last nothing may have ended yet
		if spans[i].P50MS != nil {
			return fmt.Sprintf("Lately half took %s or less, 99 of 100 took %s or less.", millis(*spans[i].P50MS), millis(*spans[i].P99MS))
		}
	}
	return "No attempt has a duration lately."
}

func orNoFigure(v *float64) float64 {
	if v == nil {
		return noFigure()
	}
	return *v
}

func millisOrNone(v *float64) string {
	if v == nil {
		return "–"
	}
	return millis(*v)
}

// compact is a figure on an axis: 950, 1.2k, 3M.
func compact(v float64) string {
	for _, unit := range []struct {
		size   float64
		letter string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if math.Abs(v) >= unit.size {
			return strconv.FormatFloat(math.Round(v/unit.size*10)/10, 'f', -1, 64) + unit.letter
		}
	}
	return strconv.FormatFloat(math.Round(v*10)/10, 'f', -1, 64)
}
