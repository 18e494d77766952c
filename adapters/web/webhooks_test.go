package web_test

import (
	"context"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/web"
	"github.com/outrider-relay/outrider/domain"
)

// add registers a webhook of account 1 behind the pages' back.
func (s *site) add(t *testing.T, account domain.AccountID, settings domain.Settings) domain.Webhook {
	t.Helper()
	if settings.URL == "" {
		settings.URL = "https://example.com/hook"
	}
	settings.OrderHold = domain.DefaultOrderHold
	hook, _, err := s.hooks.Change(t.Context(), account, 0, "test", domain.RegisterWebhook{Settings: settings, Secret: domain.NewSecret([32]byte{7})})
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

// change gives a command behind the pages' back.
func (s *site) change(t *testing.T, hook domain.Webhook, actor string, command domain.WebhookCommand) domain.Webhook {
	t.Helper()
	hook, _, err := s.hooks.Change(t.Context(), hook.AccountID, hook.ID, actor, command)
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

// read reads a webhook.
func (s *site) read(t *testing.T, id domain.WebhookID) domain.Webhook {
	t.Helper()
	hook, err := s.hooks.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return hook
}

// pathOf is where a webhook's page is.
func pathOf(hook domain.Webhook) string {
	return fmt.Sprintf("/accounts/%d/webhooks/%d", hook.AccountID, hook.ID)
}

// The way of Chatwoot's page: an empty list, the form with its labels, the
// secret, and the list with the new webhook.
func TestAddAWebhook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.as(t, domain.RoleAdministrator, 1)
	b.get("/accounts/1/webhooks").shows(t, http.StatusOK, "There are no webhooks configured for this account.", "Add new webhook")
	form := b.get("/accounts/1/webhooks/new")
	form.shows(t, http.StatusOK, "Webhook URL", "Example: https://example/api/webhook", "Webhook Name", "Enter the name of the webhook", "Create webhook", "Cancel")
	rest := form.body
	for _, label := range []string{
		"Conversation Created <code>(conversation_created)", "Conversation Status Changed <code>(conversation_status_changed)", "Conversation Updated <code>(conversation_updated)",
		"Message created <code>(message_created)", "Message updated <code>(message_updated)", "Live chat widget opened by the user <code>(webwidget_triggered)",
		"Contact created <code>(contact_created)", "Contact updated <code>(contact_updated)", "Conversation Typing On <code>(conversation_typing_on)", "Conversation Typing Off <code>(conversation_typing_off)",
	} {
		_, after, found := strings.Cut(rest, label)
		if !found {
			t.Errorf("%q is missing, or out of order", label)
			continue
		}
		rest = after
	}
	if strings.Contains(form.body, " checked") {
		t.Error("a box is ticked already")
	}

	p := b.post("/accounts/1/webhooks", "url", "https://user:pass@crm.example.com/in", "name", "CRM", "events", "message_created", "events", "contact_created",
		"other_events", "shop.order_paid, shop.order_sent", "inbox_id", "", "timeout", "10s", "max_concurrency", "", "order_hold", "forever", "deadline", "1d", "rate_limit", "2.5",
		"retries", "10s, 1m 1h", "headers", "X-Key: hush-hush\n\nX-Other: a: b")
	p.shows(t, http.StatusCreated, "Webhook added successfully", "https://crm.example.com/in", "Copy")
	hook := s.read(t, 1)
	want := domain.Settings{
		URL: "https://crm.example.com/in", Name: "CRM", Subscriptions: []string{"message_created", "contact_created", "shop.order_paid", "shop.order_sent"},
		Timeout: 10 * time.Second, MaxConcurrency: 16, OrderHold: domain.HoldForever, Deadline: 24 * time.Hour, RateLimit: 2.5,
		Retries: []time.Duration{10 * time.Second, time.Minute, time.Hour},
	}
	if got := fmt.Sprintf("%+v", hook.Settings); got != fmt.Sprintf("%+v", want) {
		t.Errorf("the settings are %s,\nwant %+v", got, want)
	}
	if hook.Credential.Reveal() != "user:pass" || hook.Headers.Text() != "X-Key: hush-hush\nX-Other: a: b\n" || hook.AccountID != 1 {
		t.Errorf("the credential, headers or account are not what was typed: account %d", hook.AccountID)
	}
	if location := p.header.Get("Location"); location != "/accounts/1/webhooks/1" || !strings.Contains(html.UnescapeString(p.body), `value="`+hook.Secret.Reveal()+`"`) {
		t.Errorf("the new webhook is at %q, or its secret is not shown", location)
	}
	if s.count(t, "SELECT count(*) FROM audit.webhook_changes WHERE change = 'registered' AND actor = 'token 1 (CRM <sync>)'") != 1 {
		t.Error("the history does not say who added it")
	}
	// Nowhere else, whatever is loaded again.
	for _, path := range []string{"/accounts/1/webhooks", "/accounts/1/webhooks/1", "/accounts/1/webhooks/1/edit"} {
		p := b.get(path)
		p.shows(t, http.StatusOK, "CRM", "https://crm.example.com/in")
		p.body = html.UnescapeString(p.body)
		p.lacks(t, hook.Secret.Reveal(), "hush-hush", "user:pass")
	}
	b.get("/accounts/1/webhooks").shows(t, http.StatusOK, "1 webhook", "Subscribed Events: Message created, Contact created, shop.order_paid", "Enabled")
	b.post("/accounts/1/webhooks", "url", "https://crm.example.com/in", "events", "message_created").
		shows(t, http.StatusUnprocessableEntity, "has a webhook with this URL already", `href="/accounts/1/webhooks/1">Look at the one`)
}

// Each field has its problem beside it, in the domain's words, and keeps what
// was typed.
func TestWhatIsWrongStandsBesideItsField(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.as(t, domain.RoleAdministrator, 1)
	b.get("/accounts/1/webhooks/new")
	for _, c := range []struct{ field, typed, problem string }{
		{"url", "", "Is missing"},
		{"url", "ftp://example.com", "Must begin with http:// or https://"},
		{"url", "http://127.0.0.1/x", "The address 127.0.0.1 is refused"},
		{"url", "https://exa mple.com/", "Cannot be parsed"},
		{"events", "", "Name at least one event"},
		{"other_events", "Not-An-Event", "is not an event name"},
		{"inbox_id", "-3", "-3 is negative"},
		{"inbox_id", "main", "is not a whole number"},
		{"timeout", "31s", "31s is not within 1s to 30s"},
		{"timeout", "0", "0s is not within 1s to 30s"},
		{"timeout", "soon", "is not a duration"},
		{"max_concurrency", "0", "0 is not within 1 to 256"},
		{"max_concurrency", "257", "257 is not within 1 to 256"},
		{"order_hold", "25h", "is not within 0 to 24h"},
		{"order_hold", "never", "nor “forever”"},
		{"deadline", "8d", "is not within 1s to 7d"},
		{"deadline", "0s", "0s is not within 1s to 7d"},
		{"rate_limit", "0.001", "is neither 0 (no limit)"},
		{"rate_limit", "NaN", "is neither 0 (no limit)"},
		{"rate_limit", "fast", "is not a number"},
		{"retries", "5s, later", "is not a duration"},
		{"retries", "8d", "is not within 1s to 7d"},
		{"headers", "Bearer hush", "A line is not like"},
		{"headers", "Host: x", "Host is sent by Outrider"},
	} {
		fields := url.Values{"form_token": {b.token}, "url": {"https://example.com/a"}, "events": {"message_created"}, "name": {"<i>kept</i>"}}
		fields.Set(c.field, c.typed)
		field := c.field
		p := b.postForm("/accounts/1/webhooks", fields)
		p.shows(t, http.StatusUnprocessableEntity, "Nothing is saved yet", "&lt;i&gt;kept&lt;/i&gt;", `id="`+field+`-problem"`, `aria-describedby="`+field+`-problem`)
		_, beside, _ := strings.Cut(p.body, `id="`+field+`-problem">`)
		beside, _, _ = strings.Cut(beside, "</p>")
		if !strings.Contains(strings.ReplaceAll(beside, "&#34;", `"`), c.problem) {
			t.Errorf("%s %q: beside it stands %q, want %q", c.field, c.typed, beside, c.problem)
		}
		if c.typed != "" && c.field != "events" && !strings.Contains(p.body, `value="`+c.typed+`"`) && !strings.Contains(p.body, ">"+c.typed+"<") {
			t.Errorf("%s: %q is not kept", c.field, c.typed)
		}
		if c.field != "events" && !strings.Contains(p.body, `value="message_created" checked`) {
			t.Errorf("%s: the box is not ticked any more", c.field)
		}
	}
	if n := s.count(t, "SELECT count(*) FROM relay.webhooks"); n != 0 {
		t.Errorf("%d webhooks were added", n)
	}
}

// Who has no script ticks all boxes or none by the server.
func TestAllAndNoneWithoutAScript(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.as(t, domain.RoleAdministrator, 1)
	b.get("/accounts/1/webhooks/new")
	p := b.post("/accounts/1/webhooks", "url", "typed", "choose", "all")
	p.shows(t, http.StatusOK, `value="typed"`)
	if n := strings.Count(p.body, " checked"); n != 10 {
		t.Errorf("%d boxes are ticked", n)
	}
	p = b.post("/accounts/1/webhooks", "url", "typed", "events", "message_created", "choose", "none")
	p.shows(t, http.StatusOK)
	p.lacks(t, " checked")
}

func TestOperatorsAccountHasItsOwnEvents(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.as(t, domain.RoleAdministrator, 0)
	p := b.get("/accounts/-1/webhooks/new")
	p.shows(t, http.StatusOK, "(delivery_dead)", "(webhook_disabled)")
	p.lacks(t, "message_created", `name="inbox_id"`, `name="other_events"`)
	b.post("/accounts/-1/webhooks", "url", "https://example.com/alarm", "events", "delivery_dead").shows(t, http.StatusCreated)
	b.get("/accounts/-1/webhooks").shows(t, http.StatusOK, "Delivery given up")
	b.get("/accounts").shows(t, http.StatusOK, `href="/accounts/-1/webhooks">Operator’s account`, "1 webhook")
}

func TestSearchWebhooks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.add(t, 1, domain.Settings{Name: "CRM", URL: "https://crm.example.com/in"})
	s.add(t, 1, domain.Settings{URL: "https://erp.example.com/in"})
	s.add(t, 2, domain.Settings{Name: "Another’s", URL: "https://crm.example.com/in"})
	b := s.as(t, domain.RoleViewer, 1)
	p := b.get("/accounts/1/webhooks?q=" + url.QueryEscape(" crm IN "))
	p.shows(t, http.StatusOK, "1 of 2 webhooks", ">CRM<", `value="crm IN"`)
	p.lacks(t, "erp.example.com", "Another’s")
	b.get("/accounts/1/webhooks?q=%3Cb%3E").shows(t, http.StatusOK, "No webhooks found matching your search", "&lt;b&gt;")
}

func TestLongListsHavePages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.exec(t, `INSERT INTO relay.webhooks (account_id, version, state, settings, url, credential, secret, previous_secret, headers, disabled_version)
		SELECT 1, n, 'enabled', json_build_object('url', 'https://example.com/' || n, 'subscriptions', json_build_array('message_created'), 'timeout', '5s', 'max_concurrency', 16, 'order_hold', '30s'), 'https://example.com/' || n, '', 'secret-of-it', '', '', 0
		  FROM generate_series(1, 101) n`)
	b := s.as(t, domain.RoleViewer, 1)
	p := b.get("/accounts/1/webhooks")
	p.shows(t, http.StatusOK, "101 webhooks", `rel="next" href="/accounts/1/webhooks?page=2&amp;q="`)
	p.lacks(t, "https://example.com/101<", `rel="prev"`)
	p = b.get("/accounts/1/webhooks?page=2")
	p.shows(t, http.StatusOK, "https://example.com/101<", `rel="prev"`)
	p.lacks(t, "https://example.com/100<", `rel="next"`)
	b.get("/accounts/1/webhooks?page=99").shows(t, http.StatusOK, "https://example.com/101<")
}

func TestEditAWebhook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM", URL: "https://user:pass@example.com/hook", Subscriptions: []string{"shop.paid", "message_created"}})
	s.change(t, hook, "test", domain.UpdateWebhook{
		Settings: hook.Settings, Headers: []domain.Header{domain.NewHeader("X-A", "hush"), domain.NewHeader("X-B", "hush")},
	})
	b := s.as(t, domain.RoleAdministrator, 1)
	p := b.get(pathOf(hook) + "/edit")
	p.shows(t, http.StatusOK, "Update webhook", `value="shop.paid"`, `value="message_created" checked`, "Remove <code>X-A</code>", "It has some; they are kept")
	fields := b.filled(p)
	fields.Set("name", "ERP")
	fields.Set("timeout", "7s")
	fields.Add("remove_header", "X-A")
	fields.Set("headers", "X-C: 3")
	p = b.postForm(pathOf(hook), fields)
	p.shows(t, http.StatusOK, "Webhook updated successfully.", "ERP", "Settings changed", "Timeout: <del>5s</del> → <ins>7s</ins>", "Name: <del>CRM</del> → <ins>ERP</ins>", "<del>X-A, X-B</del> → <ins>X-B, X-C</ins>")
	if p.path != pathOf(hook) {
		t.Errorf("the way leads to %s", p.path)
	}
	after := s.read(t, hook.ID)
	if after.Settings.Name != "ERP" || after.Settings.Timeout != 7*time.Second || after.Headers.Text() != "X-B: hush\nX-C: 3\n" || after.Credential.Reveal() != "user:pass" || !slices.Equal(after.Settings.Subscriptions, hook.Settings.Subscriptions) {
		t.Errorf("the webhook is %+v", after.Settings)
	}
	b.get(pathOf(hook)).lacks(t, "Webhook updated successfully.") // a message is said once
	b.postForm(pathOf(hook), b.filled(b.get(pathOf(hook)+"/edit"))).shows(t, http.StatusOK, "Nothing was changed")
	if again := s.read(t, hook.ID); again.Version != after.Version {
		t.Error("a form that changes nothing is a change")
	}
}

var inputs = regexp.MustCompile(`<input[^>]*>|<textarea[^>]*>[^<]*`)
var attributes = regexp.MustCompile(` (name|value|type)="([^"]*)"`)

// filled gives the page's last form as a browser would send it.
func (b *browser) filled(p page) url.Values {
	b.t.Helper()
	_, main, _ := strings.Cut(p.body, "<main")
	form := url.Values{}
	for _, input := range inputs.FindAllString(main, -1) {
		has := map[string]string{}
		for _, a := range attributes.FindAllStringSubmatch(input, -1) {
			has[a[1]] = a[2]
		}
		if has["type"] == "checkbox" || has["type"] == "radio" {
			if !strings.Contains(input, " checked") {
				continue
			}
		}
		form.Add(has["name"], has["value"])
	}
	if form.Get("form_token") == "" {
		b.t.Fatalf("%s has no form: %s", p.path, p.body)
	}
	return form
}

// A form that somebody else overtook says who, shows both, and is saved over
// theirs only by who saw it.
func TestAStaleFormChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM"})
	b := s.as(t, domain.RoleAdministrator, 1)
	fields := b.filled(b.get(pathOf(hook) + "/edit"))
	theirs := hook.Settings
	theirs.Name, theirs.Timeout = "Theirs", 9*time.Second
	s.change(t, hook, "token 9 (Mira <b>)", domain.UpdateWebhook{Settings: theirs})
	fields.Set("name", "Mine")
	p := b.postForm(pathOf(hook), fields)
	p.shows(t, http.StatusConflict, "token 9 (Mira &lt;b&gt;) changed this webhook", "<td class=\"wrap\">Mine</td><td class=\"wrap\">Theirs</td>", "<td class=\"wrap\">5s</td><td class=\"wrap\">9s</td>", `value="Mine"`)
	if now := s.read(t, hook.ID); now.Settings.Name != "Theirs" {
		t.Fatalf("the name is %s", now.Settings.Name)
	}
	b.postForm(pathOf(hook), b.filled(p)).shows(t, http.StatusOK, "Webhook updated successfully.")
	if now := s.read(t, hook.ID); now.Settings.Name != "Mine" || now.Settings.Timeout != 5*time.Second {
		t.Errorf("the webhook is %+v", now.Settings)
	}
}

// What a relay notes of a webhook, and what others do with its state, is in
// nobody's way.
func TestAFormIsStaleByChangesOfSettingsAlone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM"})
	b := s.as(t, domain.RoleAdministrator, 1)
	fields := b.filled(b.get(pathOf(hook) + "/edit"))
	s.change(t, hook, "relay", domain.OpenBreaker{At: time.Now(), Reason: "down", URL: hook.Settings.URL})
	s.change(t, hook, "somebody", domain.PauseWebhook{})
	fields.Set("name", "Mine")
	b.postForm(pathOf(hook), fields).shows(t, http.StatusOK, "Webhook updated successfully.", "Paused")
	if now := s.read(t, hook.ID); now.Settings.Name != "Mine" || now.State != domain.WebhookPaused || now.Breaker() != domain.BreakerOpen {
		t.Errorf("the webhook is %s, %+v", now.State, now.Settings)
	}
}

func TestPauseAndEnable(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM"})
	b := s.as(t, domain.RoleOperator, 1)
	b.get(pathOf(hook))
	p := b.post(pathOf(hook)+"/pause", "back", "list")
	p.shows(t, http.StatusOK, "“CRM” is paused.", ">Enable<")
	if p.path != "/accounts/1/webhooks" {
		t.Errorf("the way leads to %s", p.path)
	}
	if s.read(t, hook.ID).State != domain.WebhookPaused {
		t.Error("it is not paused")
	}
	p = b.post(pathOf(hook) + "/enable")
	p.shows(t, http.StatusOK, "“CRM” is enabled.", "Send a test")
	if p.path != pathOf(hook) {
		t.Errorf("the way leads to %s", p.path)
	}
	if s.read(t, hook.ID).State != domain.WebhookEnabled {
		t.Error("it is not enabled")
	}
}

// Enabling says what was missed, and leads to the replay of it.
func TestDisableAndEnable(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM"})
	b := s.as(t, domain.RoleAdministrator, 1)
	b.get(pathOf(hook)+"/disable").shows(t, http.StatusOK, "what waits is cancelled")
	b.post(pathOf(hook)+"/disable", "reason", "asked <for>").shows(t, http.StatusOK, "“CRM” is disabled.", "asked &lt;for&gt;", "Nothing is routed to it")
	now := s.read(t, hook.ID)
	if now.State != domain.WebhookDisabled {
		t.Fatalf("it is %s", now.State)
	}
	s.missed(t, now)
	b.post(pathOf(hook)+"/enable").shows(t, http.StatusOK, "It missed 1 event while it was disabled.", `/accounts/1/replays/new?since=`, "webhook=1")
}

// missed puts into the log that an event was skipped.
func (s *site) missed(t *testing.T, hook domain.Webhook) {
	t.Helper()
	s.exec(t, `INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, routing)
		VALUES (1, 0, 0, $1, 1, 1, clock_timestamp(), 1, 'routed', json_build_object('config_version', $2::bigint, 'skips', json_build_array(json_build_object('webhook_id', $3::bigint, 'reason', 'disabled'))), 'skipped')`,
		int64(hook.AccountID), hook.Version, int64(hook.ID))
}

func TestCloseTheBreaker(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{})
	b := s.as(t, domain.RoleOperator, 1)
	s.change(t, hook, "relay", domain.OpenBreaker{At: time.Now(), Reason: "10 <failures>", URL: hook.Settings.URL})
	b.get(pathOf(hook)).shows(t, http.StatusOK, "Receiver down", "Its receiver has been down since", "10 &lt;failures&gt;")
	b.get("/accounts/1/webhooks").shows(t, http.StatusOK, "Receiver down")
	b.post(pathOf(hook)+"/close-breaker").shows(t, http.StatusOK, "The circuit breaker is closed: what waits goes out now.", "Receiver answers again")
	b.post(pathOf(hook)+"/close-breaker").shows(t, http.StatusOK, "closed already")
}

// A test leads to its event, and says in whose name.
func TestTestAWebhook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM"})
	b := s.as(t, domain.RoleOperator, 1)
	b.get(pathOf(hook))
	p := b.post(pathOf(hook) + "/test")
	var id, metadata string
	if err := s.db.SQL.QueryRowContext(t.Context(), "SELECT id::text, metadata::text FROM outbox.events WHERE account_id = 1 AND event = 'webhook_test'").Scan(&id, &metadata); err != nil {
		t.Fatal(err)
	}
	if p.path != "/accounts/1/events/"+id || !strings.Contains(metadata, "token 1 (CRM") {
		t.Errorf("the way leads to %s, the event is %s with %s", p.path, id, metadata)
	}
	s.change(t, hook, "somebody", domain.PauseWebhook{})
	b.get(pathOf(hook))
	b.post(pathOf(hook)+"/test").shows(t, http.StatusOK, "is paused: nothing is sent to it. Enable it first.")
	if n := s.count(t, "SELECT count(*) FROM outbox.events"); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestDeleteAWebhook(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM", URL: "https://example.com/<hook>"})
	b := s.as(t, domain.RoleAdministrator, 1)
	b.get(pathOf(hook)+"/delete").shows(t, http.StatusOK, "Confirm Deletion", "Are you sure to delete the webhook? (https://example.com/%3Chook%3E)", "Yes, Delete", "No, Keep it")
	if s.read(t, hook.ID).State != domain.WebhookEnabled {
		t.Fatal("it is deleted before anybody said yes")
	}
	p := b.post(pathOf(hook) + "/delete")
	p.shows(t, http.StatusOK, "Webhook deleted successfully.", "There are no webhooks configured for this account.")
	if p.path != "/accounts/1/webhooks" {
		t.Errorf("the way leads to %s", p.path)
	}
	if s.read(t, hook.ID).State != domain.WebhookDeleted {
		t.Error("it is not deleted")
	}
	p = b.get(pathOf(hook))
	p.shows(t, http.StatusOK, "This webhook is deleted.", "Deleted")
	p.lacks(t, "Send a test", "/edit", "Reveal", ">Enable<")
	b.post(pathOf(hook)+"/delete").shows(t, http.StatusNotFound)
	b.get(pathOf(hook)+"/edit").shows(t, http.StatusNotFound)
}

// A secret that is shown goes on record.
func TestRevealTheSecret(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{})
	opaque, err := domain.ParseSecret("opaque-secret")
	if err != nil {
		t.Fatal(err)
	}
	hook = s.change(t, hook, "test", domain.RotateSecret{Secret: opaque, Until: time.Now().Add(time.Hour)})
	b := s.as(t, domain.RoleAdministrator, 1)
	b.get(pathOf(hook)).lacks(t, "opaque-secret")
	b.post(pathOf(hook)+"/reveal-secret").shows(t, http.StatusOK, `value="opaque-secret"`, `value="whsec_b3BhcXVlLXNlY3JldA=="`, `value="`+strings.ReplaceAll(hook.PreviousSecret.Reveal(), "+", "&#43;")+`"`)
	b.get(pathOf(hook)).shows(t, http.StatusOK, "Secret shown", "token 1 (CRM")
}

func TestRotateTheSecret(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{})
	b := s.as(t, domain.RoleAdministrator, 1)
	fields := b.filled(b.get(pathOf(hook) + "/rotate-secret"))
	if fields.Get("overlap") != "24h" {
		t.Errorf("the overlap is %q before anybody chose", fields.Get("overlap"))
	}
	p := b.postForm(pathOf(hook)+"/rotate-secret", fields)
	now := s.read(t, hook.ID)
	p.shows(t, http.StatusOK, "New secret", "The old secret signs too until")
	if now.Secret == hook.Secret || now.PreviousSecret != hook.Secret || time.Until(now.PreviousUntil) < 23*time.Hour {
		t.Errorf("the old secret signs until %s", now.PreviousUntil)
	}
	// The page loaded again.
	b.postForm(pathOf(hook)+"/rotate-secret", fields).shows(t, http.StatusConflict, "The webhook was changed meanwhile")
	if again := s.read(t, hook.ID); again.Secret != now.Secret {
		t.Error("it is rotated again")
	}
	fields = b.filled(b.get(pathOf(hook) + "/rotate-secret"))
	fields.Set("overlap", "2y")
	b.postForm(pathOf(hook)+"/rotate-secret", fields).shows(t, http.StatusUnprocessableEntity, "The overlap is none of those")
	fields.Set("overlap", "0")
	b.postForm(pathOf(hook)+"/rotate-secret", fields).shows(t, http.StatusOK, "The old secret signs no more.")
}

// How a webhook did is drawn and, beside it, told in words and a table.
func TestHowAWebhookDid(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{Name: "CRM"})
	hour := time.Now().UTC().Truncate(time.Hour)
	for i, c := range []struct{ succeeded, failed int }{{90, 10}, {900, 0}} {
		s.exec(t, `INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
			VALUES ($1, 1, $2, -1, 0, $3, $4, 0, 0, 0, 0, 1, ARRAY[$5::smallint], ARRAY[$3::bigint], 0)`,
			int64(hook.ID), hour.Add(-time.Duration(i*30)*time.Hour), c.succeeded, c.failed, domain.LatencyBucket(120*time.Millisecond))
	}
	s.exec(t, `INSERT INTO relay.webhook_standings (webhook_id, account_id, commit, epoch, last_success_at, last_failure_at, failures, pending, failing_since)
		VALUES ($1, 1, 1, 0, clock_timestamp() - interval '2 hours', clock_timestamp() - interval '3 minutes', 4, 1234, clock_timestamp() - interval '1 hour')`, int64(hook.ID))
	b := s.as(t, domain.RoleViewer, 1)
	b.get("/accounts/1/webhooks").shows(t, http.StatusOK, `<svg class="graph plain" viewBox="0 0 1088 224" role="img" aria-label="100 attempts in the last 24 hours, 90 % succeeded, 10 did not"`, "1,234 waiting", "failed, 4 in a row", ">3 min ago<", "90 %")
	p := b.get(pathOf(hook))
	p.shows(t, http.StatusOK, "90 %", "100 attempts in 24 hours", "1,234", ">2 h ago<", `class="graph" viewBox="0 0 2640 1080" role="img" aria-label="100 attempts in the last 24 hours`, `aria-label="Time to answer in the last 24 hours`, `class="s-none f-bad"`, `class="s-p95`,
		"<title>"+hour.Format("2 Jan 15:04 UTC")+": 100 attempts, 10 failed</title>",
		`<th scope="row">`+hour.Format("2006-01-02 15:04")+`</th><td class="numeric">100</td><td class="numeric">90</td><td class="numeric">10</td>`)
	p.lacks(t, " style=", `>900<`)
	b.get(pathOf(hook)+"?range=7d").shows(t, http.StatusOK, "99 %", "1,000 attempts in 7 days", `<td class="numeric">900</td>`)
}

// Names, URLs, reasons and actors are text, wherever they stand.
func TestWhatOthersWroteIsText(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(1)>`
	hook := s.add(t, 1, domain.Settings{Name: evil, URL: `https://example.com/'"><script>alert(1)</script>?q="><script>alert(1)</script>`})
	s.change(t, hook, evil, domain.DisableWebhook{Reason: evil})
	b := s.as(t, domain.RoleAdministrator, 1)
	for _, path := range []string{
		"/accounts/1/webhooks", "/accounts/1/webhooks?q=" + url.QueryEscape(evil), "/accounts/1/webhooks/1", "/accounts/1/webhooks/1/edit", "/accounts/1/webhooks/1/delete",
		"/accounts/1/webhooks/1/rotate-secret", "/accounts/1/webhooks/1/disable", "/login?next=" + url.QueryEscape("/"+evil), "/" + url.PathEscape(evil),
	} {
		b.get(path).lacks(t, "<script>alert", "<img src=x", `href="javascript:`)
	}
	b.get("/accounts/1/webhooks/1")
	b.post("/accounts/1/webhooks", "url", evil, "name", evil, "other_events", evil, "headers", evil, "timeout", evil, "retries", evil).lacks(t, "<script>alert", "<img src=x")
	p := b.post("/accounts/1/webhooks/1/pause")
	p.shows(t, http.StatusOK, "is paused.")
	p.lacks(t, "<script>alert", "<img src=x")
}

// The query of a URL may be a secret.
func TestTheQueryOfAURLIsForAdministrators(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.add(t, 1, domain.Settings{URL: "https://example.com/in?key=hush"})
	for _, role := range []domain.Role{domain.RoleViewer, domain.RoleOperator} {
		b := s.as(t, role, 1)
		for _, path := range []string{"/accounts/1/webhooks", pathOf(hook)} {
			p := b.get(path)
			p.shows(t, http.StatusOK, "https://example.com/in?…")
			p.lacks(t, "hush")
		}
		p := b.get("/accounts/1/webhooks?q=hush")
		p.shows(t, http.StatusOK, "No webhooks found")
	}
	s.as(t, domain.RoleAdministrator, 1).get(pathOf(hook)).shows(t, http.StatusOK, "key=hush")
}

// All changes are there, page after page, and those of this webhook alone.
func TestAllChanges(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook, other := s.add(t, 1, domain.Settings{Name: "CRM"}), s.add(t, 1, domain.Settings{URL: "https://example.com/other"})
	for range 30 {
		s.change(t, hook, "Mira", domain.PauseWebhook{})
		s.change(t, other, "Somebody else", domain.PauseWebhook{})
		s.change(t, hook, "Mira", domain.EnableWebhook{})
		s.change(t, other, "Somebody else", domain.EnableWebhook{})
	}
	b := s.as(t, domain.RoleViewer, 1)
	b.get(pathOf(hook)).shows(t, http.StatusOK, `href="`+pathOf(hook)+`/changes">All changes`)
	first := b.get(pathOf(hook) + "/changes")
	first.shows(t, http.StatusOK, "Paused", "Enabled", "Mira")
	first.lacks(t, "Somebody else", "Added")
	_, older, found := strings.Cut(first.body, `rel="next" href="`)
	older, _, _ = strings.Cut(older, `"`)
	if !found {
		t.Fatal("there is no second page")
	}
	second := b.get(older)
	second.shows(t, http.StatusOK, "Added")
	second.lacks(t, "Somebody else", `rel="next"`)
	if n := strings.Count(first.body+second.body, "</strong></p>"); n != 61 {
		t.Errorf("%d changes", n)
	}
	b.get(pathOf(hook)+"/changes?after=x").shows(t, http.StatusBadRequest, "There is no such page of changes")
}

// meddler does something to webhooks right before somebody's change arrives.
type meddler struct {
	web.Webhooks
	before func()
}

func (m *meddler) Change(ctx context.Context, account domain.AccountID, id domain.WebhookID, actor string, command domain.WebhookCommand) (domain.Webhook, bool, error) {
	if before := m.before; before != nil {
		m.before = nil
		before()
	}
	return m.Webhooks.Change(ctx, account, id, actor, command)
}

// Between the look at a webhook and its change nobody slips in.
func TestAFormIsOvertakenAtTheLastMoment(t *testing.T) {
	t.Parallel()
	m := &meddler{}
	s := newSite(t, func(c *web.Config) { m.Webhooks, c.Webhooks = c.Webhooks, m })
	hook := s.add(t, 1, domain.Settings{Name: "CRM"})
	b := s.as(t, domain.RoleAdministrator, 1)
	fields := b.filled(b.get(pathOf(hook) + "/edit"))
	fields.Set("name", "Mine")
	m.before = func() {
		theirs := hook.Settings
		theirs.Name = "Theirs"
		s.change(t, hook, "Mira", domain.UpdateWebhook{Settings: theirs})
	}
	b.postForm(pathOf(hook), fields).shows(t, http.StatusConflict, "Mira changed this webhook", "Theirs")
	fields = b.filled(b.get(pathOf(hook) + "/edit"))
	fields.Set("name", "Mine")
	m.before = func() { s.change(t, hook, "Mira", domain.PauseWebhook{}) }
	b.postForm(pathOf(hook), fields).shows(t, http.StatusOK, "Webhook updated successfully.")
	if now := s.read(t, hook.ID); now.Settings.Name != "Mine" || now.State != domain.WebhookPaused {
		t.Errorf("the webhook is %s, %+v", now.State, now.Settings)
	}
	// Another webhook with the URL, which came while the form was judged.
	fields = b.filled(b.get(pathOf(hook) + "/edit"))
	fields.Set("url", "https://example.com/other")
	m.before = func() { s.add(t, 1, domain.Settings{URL: "https://example.com/other"}) }
	b.postForm(pathOf(hook), fields).shows(t, http.StatusUnprocessableEntity, "has a webhook with this URL already", `value="https://example.com/other"`, "Look at the one that has it")
}

// TestAWebhookThatCannotBeReadIsListed: with what is wrong and without what
// could not be done, and the pages that name webhooks come too.
func TestAWebhookThatCannotBeReadIsListed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	broken := s.add(t, 1, domain.Settings{URL: "https://example.com/broken"})
	s.add(t, 1, domain.Settings{URL: "https://example.com/well"})
	s.exec(t, `UPDATE relay.webhooks SET settings = '{"timeout": "soon"}' WHERE id = $1`, int64(broken.ID))
	const problem = "its settings cannot be read: time: invalid duration &#34;soon&#34;"

	list := s.as(t, domain.RoleAdministrator, 1).get("/accounts/1/webhooks")
	list.shows(t, http.StatusOK, fmt.Sprintf("Webhook %d", broken.ID), problem, "Unreadable", "https://example.com/well", "2 webhooks")
	if strings.Contains(list.body, pathOf(broken)) {
		t.Error("what cannot be read is to be opened or changed")
	}
	all := s.as(t, domain.RoleViewer, 0)
	all.get("/accounts/1/webhooks?q=cannot").shows(t, http.StatusOK, problem, "1 of 2 webhooks")
	all.get("/accounts/1/deliveries").shows(t, http.StatusOK, fmt.Sprintf("%d · Unreadable", broken.ID), "https://example.com/well")
	accounts := all.get("/accounts")
	accounts.shows(t, http.StatusOK, "2 webhooks", "1 unreadable")
	if strings.Contains(accounts.body, "all enabled") {
		t.Error("an account is well of which one webhook cannot be read")
	}
}
