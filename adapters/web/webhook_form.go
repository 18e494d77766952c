package web

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// webhookForm is the form by which a webhook is added or changed.
type webhookForm struct {
	Account domain.AccountID
	// ID is 0 for a new webhook.
	ID      domain.WebhookID
	Version int64
	// Heading is the webhook as it is called.
	Heading string
	// Fields are what was typed, by name.
	Fields map[string]string
	// Boxes are the events that one chooses by a box, Other has the names of
	// those that one types.
	Boxes []eventBox
	// Kept are the headers that the webhook has; their values are not shown.
	Kept []keptHeader
	// Credential says that it has a user and password of its URL.
	Credential bool
	// Problems are what is wrong, by field; General what is of none.
	Problems map[string]string
	General  []string
	// Taken is the webhook that has the URL already, 0 for none.
	Taken domain.WebhookID
	// Conflict is what somebody else changed meanwhile, nil for nothing.
	Conflict *conflict
}

// eventBox is a box of the form.
type eventBox struct {
	eventLabel
	Checked bool
}

// keptHeader is a header that a webhook has.
type keptHeader struct {
	Name    string
	Removed bool
}

// conflict is what the form shows where the webhook was changed since it was
// loaded.
type conflict struct {
	// By and At are of the newest change; By is "" where it is not known.
	By string
	At time.Time
	// Fields are the settings that are not what was typed.
	Fields []conflictField
}

// conflictField is a setting that differs.
type conflictField struct{ Label, Yours, Theirs string }

// Advanced reports whether the form's second part is open: something in it is
// not as usual, or wrong.
func (f *webhookForm) Advanced() bool {
	for _, name := range advancedFields {
		if f.Problems[name] != "" || f.Fields[name] != "" {
			return true
		}
	}
	return len(f.Kept) > 0 || f.Credential
}

// Path is where the form is sent.
func (f *webhookForm) Path() string {
	if f.ID == 0 {
		return accountPath(f.Account, "webhooks")
	}
	return accountPath(f.Account, "webhooks/"+strconv.FormatInt(int64(f.ID), 10))
}

// shownField is a field of a form for a template.
type shownField struct{ Name, Hint, Label, Usual, Value, Problem string }

// fieldFor gives a template one of a form's fields: name, hint and, for those of
// one line, label and what is usual.
func fieldFor(f *webhookForm, name, hint string, more ...string) shownField {
	shown := shownField{Name: name, Hint: hint, Value: f.Fields[name], Problem: f.Problems[name]}
	if len(more) == 2 {
		shown.Label, shown.Usual = more[0], more[1]
	}
	return shown
}

// The fields of the form.
var (
	plainFields    = []string{"url", "name", "other_events"}
	advancedFields = []string{"inbox_id", "timeout", "max_concurrency", "order_hold", "deadline", "rate_limit", "retries", "headers"}
	listFields     = []string{"events", "remove_header"}
)

// fieldOf is the field of a member that the domain names.
func fieldOf(member string) (field string, ok bool) {
	if member == "subscriptions" {
		return "events", true
	}
	return member, slices.Contains(plainFields, member) || slices.Contains(advancedFields, member)
}

// newForm is the form as it is before anybody typed.
func newForm(account domain.AccountID) *webhookForm {
	f := &webhookForm{Account: account, Fields: map[string]string{}, Problems: map[string]string{}}
	f.check(nil)
	return f
}

// formOf is the form with a webhook's settings. A setting that is the default is
// left empty: the form shows the default in its place.
func formOf(hook *domain.Webhook) *webhookForm {
	s := &hook.Settings
	f := &webhookForm{
		Account: hook.AccountID, Problems: map[string]string{},
		Fields: map[string]string{
			"url": s.URL, "name": s.Name, "other_events": strings.Join(unlabelled(hook.AccountID, s.Subscriptions), " "),
			"retries": retriesField(s.Retries),
		},
	}
	set := func(field, text string, usual bool) {
		if !usual {
			f.Fields[field] = text
		}
	}
	set("inbox_id", strconv.FormatInt(s.InboxID, 10), s.InboxID == 0)
	set("timeout", durationText(s.Timeout), s.Timeout == domain.DefaultTimeout)
	set("max_concurrency", strconv.Itoa(s.MaxConcurrency), s.MaxConcurrency == domain.DefaultMaxConcurrency)
	set("order_hold", holdText(s.OrderHold), s.OrderHold == domain.DefaultOrderHold)
	set("deadline", durationText(s.Deadline), s.Deadline == domain.DefaultDeadline)
	set("rate_limit", rateText(s.RateLimit), s.RateLimit == 0)
	f.check(s.Subscriptions)
	f.of(hook)
	return f
}

// of adds what the form has of the webhook itself and not of its settings.
func (f *webhookForm) of(hook *domain.Webhook) {
	f.ID, f.Version, f.Credential = hook.ID, hook.Version, !hook.Credential.IsZero()
	if f.Heading = hook.Settings.Name; f.Heading == "" {
		f.Heading = hook.Settings.URL
	}
	removed := f.removed()
	f.Kept = nil
	for name := range hook.Headers.All() {
		f.Kept = append(f.Kept, keptHeader{name, slices.Contains(removed, name)})
	}
}

// check ticks the boxes of some events.
func (f *webhookForm) check(names []string) {
	f.Boxes = nil
	for _, e := range eventsOf(f.Account) {
		f.Boxes = append(f.Boxes, eventBox{e, slices.Contains(names, e.Name)})
	}
}

// removed are the headers whose removal was asked for.
func (f *webhookForm) removed() (names []string) {
	for _, h := range f.Kept {
		if h.Removed {
			names = append(names, h.Name)
		}
	}
	return names
}

// typed reads what was posted.
func typed(r *request) *webhookForm {
	f := &webhookForm{Account: r.account, Fields: map[string]string{}, Problems: map[string]string{}}
	for _, name := range slices.Concat(plainFields, advancedFields) {
		f.Fields[name] = strings.TrimSpace(r.form.text(name))
	}
	f.check(r.form["events"])
	for _, name := range r.form["remove_header"] {
		f.Kept = append(f.Kept, keptHeader{name, true})
	}
	return f
}

// settings reads the fields, and notes what is wrong with them.
func (f *webhookForm) settings() (domain.Settings, []domain.Header) {
	s := domain.Settings{URL: f.Fields["url"], Name: f.Fields["name"], Subscriptions: []string{}, OrderHold: domain.DefaultOrderHold}
	for _, box := range f.Boxes {
		if box.Checked {
			s.Subscriptions = append(s.Subscriptions, box.Name)
		}
	}
	s.Subscriptions = append(s.Subscriptions, strings.FieldsFunc(f.Fields["other_events"], between)...)
	read(f, "inbox_id", &s.InboxID, func(text string) (int64, error) {
		n, err := parseNumber(text)
		return int64(n), err
	})
	read(f, "timeout", &s.Timeout, parseDuration)
	read(f, "max_concurrency", &s.MaxConcurrency, parseNumber)
	read(f, "order_hold", &s.OrderHold, parseHold)
	read(f, "deadline", &s.Deadline, parseDuration)
	read(f, "rate_limit", &s.RateLimit, parseRate)
	read(f, "retries", &s.Retries, parseRetries)
	var headers []domain.Header
	read(f, "headers", &headers, parseHeaders)
	for _, name := range f.removed() {
		headers = append(headers, domain.Header{Name: name})
	}
	// To the domain 0 is the default; who types it wants it judged.
	if f.Fields["timeout"] != "" && s.Timeout == 0 {
		f.problem("timeout", "0s is not within 1s to 30s")
	}
	if f.Fields["deadline"] != "" && s.Deadline == 0 {
		f.problem("deadline", "0s is not within 1s to 7d")
	}
	if f.Fields["max_concurrency"] != "" && s.MaxConcurrency == 0 {
		f.problem("max_concurrency", "0 is not within 1 to 256")
	}
	return s, headers
}

// read reads a field that is not empty.
func read[T any](f *webhookForm, field string, into *T, parse func(string) (T, error)) {
	text := f.Fields[field]
	if text == "" {
		return
	}
	value, err := parse(text)
	if err != nil {
		f.problem(field, err.Error())
		return
	}
	*into = value
}

// problem notes what is wrong with a field: the first thing of each.
func (f *webhookForm) problem(field, text string) {
	if f.Problems[field] == "" {
		f.Problems[field] = upperFirst(text)
	}
}

// refused notes what the domain says against the settings. Another error comes
// back.
func (f *webhookForm) refused(err error) error {
	if taken, ok := errors.AsType[*domain.URLTakenError](err); ok {
		f.problem("url", "the account has a webhook with this URL already")
		f.Taken = taken.WebhookID
		return nil
	}
	invalid, ok := errors.AsType[*domain.InvalidSettingsError](err)
	if !ok {
		return err
	}
	for _, problem := range invalid.Problems {
		member, text, _ := strings.Cut(problem, ": ")
		field, known := fieldOf(member)
		if field == "events" && f.typedName(text) {
			field = "other_events"
		}
		if known {
			f.problem(field, text)
		} else {
			f.General = append(f.General, upperFirst(problem))
		}
	}
	return nil
}

// typedName reports whether a problem quotes an event that was typed, and not
// chosen by a box.
func (f *webhookForm) typedName(problem string) bool {
	quoted, err := strconv.QuotedPrefix(problem)
	if err != nil {
		return false
	}
	name, err := strconv.Unquote(quoted)
	return err == nil && slices.Contains(strings.FieldsFunc(f.Fields["other_events"], between), name)
}

// wrong reports whether anything is.
func (f *webhookForm) wrong() bool { return len(f.Problems)+len(f.General) > 0 }

// show answers with the form.
func (p *pages) showForm(w http.ResponseWriter, r *request, status int, f *webhookForm) error {
	title := "Add new webhook"
	if f.ID != 0 {
		title = "Edit webhook"
	}
	return p.render(w, r, status, "webhook_form", &view{Title: title, Nav: "webhooks", Data: f})
}

// chosen ticks all boxes or none, for those who have no script.
func (f *webhookForm) chosen(r *request) bool {
	switch r.form.text("choose") {
	case "all":
		for i := range f.Boxes {
			f.Boxes[i].Checked = true
		}
	case "none":
		f.check(nil)
	default:
		return false
	}
	return true
}

// newWebhook is the empty form.
func (p *pages) newWebhook(w http.ResponseWriter, r *request) error {
	return p.showForm(w, r, http.StatusOK, newForm(r.account))
}

// addWebhook adds a webhook and shows its secret, once.
func (p *pages) addWebhook(w http.ResponseWriter, r *request) error {
	if err := r.form.only(slices.Concat(plainFields, advancedFields, []string{"choose"}), []string{"events"}); err != nil {
		return err
	}
	f := typed(r)
	if f.chosen(r) {
		return p.showForm(w, r, http.StatusOK, f)
	}
	settings, headers := f.settings()
	register := domain.RegisterWebhook{Settings: settings, Headers: headers, Secret: newSecret(), Addresses: p.Addresses}
	// The same decision as below, so that all problems are told together.
	if _, err := domain.DecideWebhook(domain.Webhook{AccountID: r.account}, register); err != nil {
		if err := f.refused(err); err != nil {
			return err
		}
	}
	if f.wrong() {
		return p.showForm(w, r, http.StatusUnprocessableEntity, f)
	}
	hook, _, err := p.Webhooks.Change(r.Context(), r.account, 0, r.access.Actor(), register)
	if err != nil {
		if err := f.refused(err); err != nil {
			return err
		}
		return p.showForm(w, r, http.StatusUnprocessableEntity, f)
	}
	w.Header().Set("Location", webhookPath(&hook))
	return p.showSecret(w, r, http.StatusCreated, &hook, onAdding)
}

// editWebhook is the form of a webhook.
func (p *pages) editWebhook(w http.ResponseWriter, r *request) error {
	hook, err := p.liveHook(r)
	if err != nil {
		return err
	}
	return p.showForm(w, r, http.StatusOK, formOf(&hook))
}

// updateWebhook changes the settings of a webhook, if nobody else did since the
// form was loaded.
func (p *pages) updateWebhook(w http.ResponseWriter, r *request) error {
	if err := r.form.only(slices.Concat(plainFields, advancedFields, []string{"choose", "version"}), listFields); err != nil {
		return err
	}
	version, err := strconv.ParseInt(r.form.text("version"), 10, 64)
	if err != nil {
		return errBadForm
	}
	hook, err := p.liveHook(r)
	if err != nil {
		return err
	}
	f := typed(r)
	f.of(&hook)
	if f.Version = version; f.chosen(r) {
		return p.showForm(w, r, http.StatusOK, f)
	}
	settings, headers := f.settings()
	settings.Subscriptions = inOrderOf(hook.Settings.Subscriptions, settings.Subscriptions)
	update := domain.UpdateWebhook{Settings: settings, Headers: headers, Addresses: p.Addresses}
	if _, err := domain.DecideWebhook(hook, update); err != nil {
		if err := f.refused(err); err != nil {
			return err
		}
	}
	if f.wrong() {
		return p.showForm(w, r, http.StatusUnprocessableEntity, f)
	}
	return p.update(w, r, f, hook, update)
}

// inOrderOf brings names into the order of others, as far as they are among
// them: a form does not know in which order its webhook has its subscriptions.
func inOrderOf(others, names []string) []string {
	ordered := make([]string, 0, len(names))
	for _, name := range others {
		if slices.Contains(names, name) {
			ordered = append(ordered, name)
		}
	}
	for _, name := range names {
		if !slices.Contains(others, name) {
			ordered = append(ordered, name)
		}
	}
	return ordered
}

// update carries out a change of settings that was decided at the form's
// version. What happened to the webhook since is no obstacle, unless somebody
// changed its settings: a relay that opens a breaker does not.
func (p *pages) update(w http.ResponseWriter, r *request, f *webhookForm, hook domain.Webhook, update domain.UpdateWebhook) error {
	const tries = 3
	for range tries {
		found, err := p.conflict(r, f, &hook, update.Settings)
		if err != nil {
			return err
		}
		if found != nil {
			f.of(&hook)
			f.Conflict = found
			return p.showForm(w, r, http.StatusConflict, f)
		}
		changed, didChange, err := p.Webhooks.Change(r.Context(), r.account, hook.ID, r.access.Actor(), domain.ExpectVersion{Versions: []int64{hook.Version}, Command: update})
		if _, stale := errors.AsType[*domain.StaleVersionError](err); stale {
			if hook, err = p.liveHook(r); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			if err := f.refused(err); err != nil {
				return err
			}
			return p.showForm(w, r, http.StatusUnprocessableEntity, f)
		}
		message := flash{Kind: "good", Text: "Webhook updated successfully."}
		if !didChange {
			message = flash{Text: "Nothing was changed: the webhook is that way already."}
		}
		p.say(w, r, message)
		return redirect(w, r, webhookPath(&changed))
	}
	return errStale
}

// conflict looks whether somebody changed the settings since the form's version;
// nil where nobody did.
func (p *pages) conflict(r *request, f *webhookForm, hook *domain.Webhook, yours domain.Settings) (*conflict, error) {
	if hook.Version == f.Version {
		return nil, nil //nolint:nilnil // no conflict is no error
	}
	const newest = 100
	changes, err := p.Audit.Changes(r.Context(), audit.Filter{AccountID: r.account, WebhookID: hook.ID, Limit: newest}, nil)
	if err != nil {
		return nil, err
	}
	found := &conflict{}
	reached := changes.Next == nil
	for i := range changes.Records {
		c := &changes.Records[i]
		if c.WebhookVersion <= f.Version {
			reached = true
			break
		}
		if c.Change == "updated" {
			found.By, found.At = c.Actor, c.At
			break
		}
	}
	if found.By == "" && reached {
		return nil, nil //nolint:nilnil // as above
	}
	found.compare(&yours, hook)
	return found, nil
}

// compare lists the settings that differ from those that were typed.
func (c *conflict) compare(yours *domain.Settings, theirs *domain.Webhook) {
	add := func(label, yours, theirs string) {
		if yours != theirs {
			c.Fields = append(c.Fields, conflictField{label, orDash(yours), orDash(theirs)})
		}
	}
	a, b := factsOf(theirs.AccountID, yours), factsOf(theirs.AccountID, &theirs.Settings)
	shown, _, err := domain.ParseWebhookURL(yours.URL, domain.AddressPolicy{})
	if err != nil {
		shown = yours.URL // an address that the operator allows
	}
	add("URL", shown, theirs.Settings.URL)
	add("Name", yours.Name, theirs.Settings.Name)
	for i := range a {
		add(a[i].Label, a[i].Text, b[i].Text)
	}
}

func orDash(text string) string {
	if text == "" {
		return "–"
	}
	return text
}
