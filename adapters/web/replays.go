package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// replayRoutes are those of replays. A plan is one that is not run yet.
func replayRoutes() []route {
	const one = "/accounts/{account}/replays/{id}"
	return []route{
		{Route{Method: "GET", Pattern: "/accounts/{account}/replays", Permission: domain.Read}, (*pages).replays},
		{Route{Method: "GET", Pattern: "/accounts/{account}/replays/new", Permission: domain.Operate}, (*pages).newReplay},
		{Route{Method: "POST", Pattern: "/accounts/{account}/replays/new", Permission: domain.Operate}, (*pages).planReplay},
		{Route{Method: "GET", Pattern: one, Permission: domain.Read}, (*pages).replay},
		{Route{Method: "GET", Pattern: one + "/live", Permission: domain.Read, Stream: true}, (*pages).replayLive},
		{Route{Method: "POST", Pattern: one + "/run", Permission: domain.Operate}, (*pages).runReplay},
		{Route{Method: "POST", Pattern: one + "/pause", Permission: domain.Operate}, changeReplay(Plans.Pause, "waiting", "is paused")},
		{Route{Method: "POST", Pattern: one + "/resume", Permission: domain.Operate}, changeReplay(Plans.Resume, "good", "goes on")},
		{Route{Method: "POST", Pattern: one + "/cancel", Permission: domain.Operate}, changeReplay(Plans.Cancel, "waiting", "is cancelled")},
	}
}

// replayPath is where a replay is.
func replayPath(account domain.AccountID, id domain.ReplayID) string {
	return accountPath(account, "replays/"+strconv.FormatInt(int64(id), 10))
}

// replayStates are the states for people.
var replayStates = map[string]statusOf{
	"planned":    {"Planned", "", "○"},
	"requested":  {"Begins", "waiting", "…"},
	"running":    {"Running", "waiting", "▸"},
	"paused":     {"Paused", "waiting", "‖"},
	"cancelling": {"Is being cancelled", "waiting", "…"},
	"cancelled":  {"Cancelled", "", "⊘"},
	"finished":   {"Finished", "good", "✓"},
}

// replaysShown is how many are on a page.
const replaysShown = 25

// shownReplay is a replay and how far it is.
type shownReplay struct {
	audit.Replay
	Shown    statusOf
	By       string // who asked for it
	Selected string // in words
	Counts   []outcomeCount
	// Percent is how far it is, Bar the parts of the bar.
	Percent int
	Bar     []barPart
}

// outcomeCount is how many deliveries came to an end.
type outcomeCount struct {
	Word, Tint, Mark string
	N                int64
}

// barPart is a stretch of a bar from X on, in hundredths of a per cent.
type barPart struct {
	Tint     string
	X, Width int64
}

// barLength is a full bar.
const barLength = 10_000

func newShownReplay(r *audit.Replay) shownReplay {
	shown := shownReplay{Replay: *r, By: audit.Printable(r.RequestedBy), Shown: replayStates[r.State], Selected: selectionText(r)}
	if shown.Shown.Word == "" {
		shown.Shown = statusOf{r.State, "", "·"}
	}
	at := int64(0)
	for _, c := range []outcomeCount{
		{"delivered", "good", "✓", r.Succeeded}, {"given up", "bad", "✗", r.Dead}, {"expired", "bad", "⌛", r.Expired},
		{"cancelled", "none", "⊘", r.Cancelled}, {"without payload", "none", "·", r.Gone},
	} {
		if c.N == 0 {
			continue
		}
		shown.Counts = append(shown.Counts, c)
		width := barLength * c.N / max(r.Total, 1)
		shown.Bar = append(shown.Bar, barPart{c.Tint, at, width})
		at += width
	}
	if under := r.Scheduled + r.Gone - r.Done(); under > 0 {
		shown.Counts = append(shown.Counts, outcomeCount{"under way", "waiting", "…", under})
	}
	if left := r.Total - r.Scheduled - r.Gone; left > 0 && !r.Over() {
		shown.Counts = append(shown.Counts, outcomeCount{"to come", "", "○", left})
	}
	if r.Total > 0 {
		shown.Percent = int(100 * r.Done() / r.Total)
	}
	return shown
}

// Planned says that it is not run yet.
func (r *shownReplay) Planned() bool { return r.State == "planned" }

// Pausable, Resumable and Cancellable say what can be done with it.
func (r *shownReplay) Pausable() bool { return r.State == "requested" || r.State == "running" }

// Resumable says that it is paused.
func (r *shownReplay) Resumable() bool { return r.State == "paused" }

// Cancellable says that something of it is still to come.
func (r *shownReplay) Cancellable() bool { return !r.Over() && r.State != "cancelling" }

// selectionText says what a replay selected.
func selectionText(r *audit.Replay) string {
	var s struct {
		Since, Until *time.Time
		WebhookID    *int64      `json:"webhook_id"`
		EventIDs     []uuid.UUID `json:"event_ids"`
		EventCount   int         `json:"event_id_count"`
		Events       []string
		OrderingKey  *string `json:"ordering_key"`
		Statuses     []string
	}
	if json.Unmarshal(r.Selection, &s) != nil {
		return audit.Printable(string(r.Selection))
	}
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, audit.Printable(fmt.Sprintf(format, args...))) }
	const layout = "2006-01-02 15:04:05"
	if s.Since != nil && s.Until != nil {
		add("routed from %s to %s UTC", s.Since.UTC().Format(layout), s.Until.UTC().Format(layout))
	}
	if len(s.EventIDs) == 1 {
		add("event %s", s.EventIDs[0])
	} else if n := max(s.EventCount, len(s.EventIDs)); n > 0 {
		add("%s", count(n, "event", "events"))
	}
	if s.WebhookID != nil {
		add("to webhook %d", *s.WebhookID)
	}
	if len(s.Events) > 0 {
		add("named %s", strings.Join(s.Events, ", "))
	}
	if s.OrderingKey != nil {
		if add := audit.KeyName(*s.OrderingKey); *s.OrderingKey != "" {
			parts = append(parts, "of "+add)
		} else {
			parts = append(parts, "of no ordering key")
		}
	}
	if len(s.Statuses) > 0 {
		words := make([]string, len(s.Statuses))
		for i, status := range s.Statuses {
			words[i] = statusWord(status)
		}
		add("%s", strings.ToLower(strings.Join(words, " or ")))
	}
	if r.ToWebhookID != 0 {
		add("sent to webhook %d instead", r.ToWebhookID)
	}
	if r.Rate > 0 {
		add("%s a second at most", strconv.FormatFloat(r.Rate, 'f', -1, 64))
	}
	return upperFirst(strings.Join(parts, "; "))
}

// moreStatuses are those of a replay that no delivery has.
var moreStatuses = map[string]string{"passed_over": "Passed over, the webhook was disabled", "unknown": "Unknown whether it arrived", "undelivered": "Not delivered, and not under way"}

func statusWord(status string) string {
	if word, ok := moreStatuses[status]; ok {
		return word
	}
	return shownStatus(domain.DeliveryStatus(status)).Word
}

// shownReplays is the list.
type shownReplays struct {
	Replays []shownReplay
	// Older and Newest are paths of pages, "" for none.
	Older, Newest string
}

// replays lists the account's replays.
func (p *pages) replays(w http.ResponseWriter, r *request) error {
	var before domain.ReplayID
	var err error
	shown := &shownReplays{}
	base := accountPath(r.account, "replays")
	if text := r.URL.Query().Get("before"); text != "" {
		if before, err = idOf[domain.ReplayID](text); err != nil {
			return errNotFound
		}
		shown.Newest = base
	}
	found, err := p.Replays.List(r.Context(), r.account, "", before, replaysShown+1)
	if err != nil {
		return err
	}
	if len(found) > replaysShown {
		found = found[:replaysShown]
		shown.Older = base + "?before=" + strconv.FormatInt(int64(found[replaysShown-1].ID), 10)
	}
	for i := range found {
		shown.Replays = append(shown.Replays, newShownReplay(&found[i]))
	}
	return p.render(w, r, http.StatusOK, "replays", &view{Title: "Replays", Nav: "replays", Styles: []string{"history.css"}, Data: shown})
}

// planForm is a plan as it was typed.
type planForm struct {
	deliveryFilter
	Names    string // of events, by spaces or commas
	IDs      string // of events, a line each
	Statuses []planStatus
	Hooks    []hookName
	// Failed is what the database refused it for, "" for nothing.
	Failed, Advice string
}

// planStatus is a status to tick.
type planStatus struct {
	Value, Label string
	Ticked       bool
}

func (p *pages) planForm(r *request, values url.Values) (*planForm, error) {
	hooks, err := p.hookNames(r.Context(), r.account)
	if err != nil {
		return nil, err
	}
	f := &planForm{deliveryFilter: *filterOf(values), Names: strings.TrimSpace(values.Get("events")), IDs: strings.TrimSpace(values.Get("event_ids")), Hooks: hooks}
	if f.Names == "" {
		f.Names = f.Event
	}
	if f.IDs == "" {
		f.IDs = f.EventID
	}
	for _, status := range domain.ReplayStatuses {
		f.Statuses = append(f.Statuses, planStatus{status, statusWord(status), slices.Contains(values["status"], status)})
	}
	return f, nil
}

// newReplay asks what to replay; a list of deliveries gives its filter.
func (p *pages) newReplay(w http.ResponseWriter, r *request) error {
	form, err := p.planForm(r, r.URL.Query())
	if err != nil {
		return err
	}
	if form.Since == "" && form.IDs == "" {
		form.Since = "24h"
	}
	return p.askForPlan(w, r, http.StatusOK, form)
}

func (p *pages) askForPlan(w http.ResponseWriter, r *request, status int, form *planForm) error {
	return p.render(w, r, status, "replay_new", &view{Title: "Plan a replay", Nav: "replays", Styles: []string{"history.css"}, Data: form})
}

// maxPlanned is how many events may be named in the form.
const maxPlanned = 10_000

// selection judges what was typed.
func (f *planForm) selection(account domain.AccountID, now time.Time) domain.ReplaySelection {
	judged := f.filter(account, now)
	delete(f.Problems, "event_id")
	delete(f.Problems, "status")
	delete(f.Problems, "replay")
	s := domain.ReplaySelection{AccountID: account, WebhookID: judged.WebhookID, Since: judged.Since, Until: judged.Until, OrderingKey: judged.OrderingKey}
	split := func(text string) []string {
		return strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t' })
	}
	s.Events = split(f.Names)
	seen := map[uuid.UUID]bool{}
	for _, text := range split(f.IDs) {
		id, err := uuid.Parse(text)
		if err != nil {
			f.Problems["event_ids"] = "“" + shortened(audit.Printable(text)) + "” is not an event’s id."
			break
		}
		if !seen[id] {
			seen[id] = true
			s.EventIDs = append(s.EventIDs, id)
		}
	}
	for _, status := range f.Statuses {
		if status.Ticked {
			s.Statuses = append(s.Statuses, status.Value)
		}
	}
	switch {
	case len(f.Problems) > 0:
	case len(s.EventIDs) > maxPlanned:
		f.Problems["event_ids"] = count(len(s.EventIDs), "event is", "events are") + " too many for the form; outrider replay plan takes them from a file."
	case len(s.EventIDs) > 0 && (f.Since != "" || f.Until != ""):
		f.Problems["since"] = "Events are named, so leave the range of time empty; or the other way round."
	case len(s.EventIDs) == 0 && f.Since == "":
		f.Problems["since"] = "Say since when, or name events by their ids."
	}
	return s
}

// planReplay makes a plan, and leads to its preview. Nothing is sent yet.
func (p *pages) planReplay(w http.ResponseWriter, r *request) error {
	if err := r.form.only([]string{"webhook", "events", "event_ids", "key", "since", "until"}, []string{"status"}); err != nil {
		return err
	}
	form, err := p.planForm(r, url.Values(r.form))
	if err != nil {
		return err
	}
	for _, status := range r.form["status"] {
		if !slices.Contains(domain.ReplayStatuses, status) {
			return errBadForm
		}
	}
	selection := form.selection(r.account, p.Now())
	if len(form.Problems) > 0 {
		return p.askForPlan(w, r, http.StatusUnprocessableEntity, form)
	}
	id, err := p.Replays.Plan(r.Context(), r.access.Actor(), selection)
	if err != nil {
		if problem, advice, refused := p.Explain(err); refused != domain.RefusedNot {
			form.Failed, form.Advice = sentence(problem), sentence(advice)
			return p.askForPlan(w, r, http.StatusUnprocessableEntity, form)
		}
		return err
	}
	return redirect(w, r, replayPath(r.account, id))
}

// shownPlan is a plan before it is run, or a replay.
type shownPlan struct {
	Replay shownReplay
	Parts  []shownPart
	// Gone are deliveries that were left out, since their events have no payload.
	Gone int64
	// Estimate is how long it may take, "" where that is not known.
	Estimate string
	Hooks    []hookName
	// To and Rate are what was typed; Problem is what is wrong with it.
	To, Rate, Problem string
	// Live is the path of the updates, "" for none: it is over, or a plan.
	Live string
}

// shownPart is what a plan has for one webhook.
type shownPart struct {
	audit.ReplayPart
	Name string
}

// replayOf reads the replay in the path, which must be the account's.
func (p *pages) replayOf(r *request) (audit.Replay, error) {
	id, err := idOf[domain.ReplayID](r.PathValue("id"))
	if err != nil {
		return audit.Replay{}, errNotFound
	}
	replay, err := p.Replays.Read(r.Context(), id)
	if err == nil && replay.AccountID != r.account {
		err = errNotFound
	}
	return replay, err
}

// replay shows a plan with what it would do, or how far a replay is.
func (p *pages) replay(w http.ResponseWriter, r *request) error {
	replay, err := p.replayOf(r)
	if err != nil {
		return err
	}
	return p.showReplay(w, r, http.StatusOK, &replay, &shownPlan{})
}

func (p *pages) showReplay(w http.ResponseWriter, r *request, status int, replay *audit.Replay, shown *shownPlan) error {
	parts, err := p.Replays.Parts(r.Context(), replay.ID)
	if err != nil {
		return err
	}
	if shown.Hooks, err = p.hookNames(r.Context(), r.account); err != nil {
		return err
	}
	for _, part := range parts {
		shown.Parts = append(shown.Parts, shownPart{part, nameIn(shown.Hooks, part.WebhookID)})
		shown.Gone += part.Gone
	}
	shown.Replay = newShownReplay(replay)
	page := &view{Title: fmt.Sprintf("Replay %d", replay.ID), Nav: "replays", Styles: []string{"history.css"}, Data: shown}
	switch {
	case shown.Replay.Planned():
		page.Title = fmt.Sprintf("Plan %d", replay.ID)
		estimate, err := p.Replays.Estimate(r.Context(), replay, 0)
		if err != nil {
			return err
		}
		if estimate > 0 {
			shown.Estimate = audit.Short(max(estimate, time.Second).Round(time.Second))
		}
	case !replay.Over():
		shown.Live = replayPath(r.account, replay.ID) + "/live"
		page.Scripts = []string{"live.js"}
	}
	return p.render(w, r, status, "replay", page)
}

// replayLive tells how far a replay is as it goes on.
func (p *pages) replayLive(w http.ResponseWriter, r *request) error {
	replay, err := p.replayOf(r)
	if err != nil {
		return err
	}
	id := replay.ID
	// Its counts are not in the history, but in the replay's own row.
	return p.stream(w, r, replayPath(r.account, id), subject{every: livePoll, read: func(ctx context.Context) ([]fragment, error) {
		replay, err := p.Replays.Read(ctx, id)
		if err != nil {
			return nil, err
		}
		shown := newShownReplay(&replay)
		progress, err := p.part("replay", "progress", "progress", &shown)
		return []fragment{progress}, err
	}})
}

// runReplay runs a plan.
func (p *pages) runReplay(w http.ResponseWriter, r *request) error {
	if err := r.form.only([]string{"to", "rate"}, nil); err != nil {
		return err
	}
	replay, err := p.replayOf(r)
	if err != nil {
		return err
	}
	var run domain.ReplayRun
	shown := &shownPlan{To: r.form.text("to"), Rate: strings.TrimSpace(r.form.text("rate"))}
	if shown.To != "" {
		if run.ToWebhookID, err = p.ownWebhook(r, shown.To); err != nil {
			return err
		}
	}
	if shown.Rate != "" {
		if run.Rate, err = strconv.ParseFloat(shown.Rate, 64); err != nil || run.Rate <= 0 || run.Rate > 1e6 {
			shown.Problem = "Write the rate as a number above 0, such as 50, or leave it empty."
			return p.showReplay(w, r, http.StatusUnprocessableEntity, &replay, shown)
		}
	}
	if err := p.Replays.Request(r.Context(), r.access.Actor(), replay.ID, run); err != nil {
		problem, advice, refused := p.Explain(err)
		if refused == domain.RefusedNot {
			return err
		}
		if replay, err = p.replayOf(r); err != nil { // it may be another's by now, or run
			return err
		}
		shown.Problem = strings.TrimSpace(sentence(problem) + sentence(advice))
		return p.showReplay(w, r, http.StatusConflict, &replay, shown)
	}
	return redirect(w, r, replayPath(r.account, replay.ID))
}

// ownWebhook reads the number of a webhook that is the account's.
func (p *pages) ownWebhook(r *request, text string) (domain.WebhookID, error) {
	id, err := idOf[domain.WebhookID](text)
	if err != nil {
		return 0, errBadForm
	}
	hook, err := p.Webhooks.Get(r.Context(), id)
	if err == nil && hook.AccountID != r.account {
		err = domain.ErrWebhookGone
	}
	return id, err
}

// changeReplay takes a replay from one state to another.
func changeReplay(change func(Plans, context.Context, string, domain.ReplayID) (string, error), tint, done string) func(*pages, http.ResponseWriter, *request) error {
	return func(p *pages, w http.ResponseWriter, r *request) error {
		if err := r.form.only(nil, nil); err != nil {
			return err
		}
		replay, err := p.replayOf(r)
		if err != nil {
			return err
		}
		if _, err := change(p.Replays, r.Context(), r.access.Actor(), replay.ID); err != nil {
			return err
		}
		p.say(w, r, flash{Kind: tint, Text: fmt.Sprintf("Replay %d %s.", replay.ID, done)})
		return redirect(w, r, replayPath(r.account, replay.ID))
	}
}
