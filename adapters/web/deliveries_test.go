package web_test

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/web"
	"github.com/outrider-relay/outrider/domain"
)

func contains(body, text string) bool { return strings.Contains(body, text) }

// rows are the ids of the deliveries on a page.
func (p page) rows() []string {
	var ids []string
	for _, found := range regexp.MustCompile(`<tr id="d-([0-9a-f-]{36})"`).FindAllStringSubmatch(p.body, -1) {
		ids = append(ids, found[1])
	}
	return ids
}

func TestDeliveries(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	crm, bot := s.hook(t, 1, "CRM <b>", "https://crm.example.com/hook?token=1"), s.hook(t, 1, "", "https://bot.example.com/hook?token=2")
	other := s.hook(t, 2, "Other", "https://other.example.com/")
	stranger := s.story(t, 2, "message_created", "", other)
	stranger.delivered(other, stranger.scheduled())
	first := s.story(t, 1, "message_created", "conversation:42", crm, bot)
	delivered := first.delivered(crm, first.scheduled(), first.started(1, ""), first.succeeded(1)).String()
	dead := first.delivered(bot, first.scheduled(), first.started(1, ""), first.failed(1, "503", "x"), domain.Dead{At: first.at(time.Minute), Reason: domain.DeadAttempts}).String()
	second := s.story(t, 1, "contact_updated", "contact:7", crm)
	held := second.delivered(crm, second.scheduled(), domain.Held{At: second.at(time.Second), Reason: domain.HoldPaused}).String()

	b := s.as(t, domain.RoleViewer, 1)
	p := b.get("/accounts/1/deliveries")
	p.shows(t, http.StatusOK, "CRM &lt;b&gt;", "https://bot.example.com/hook", "Message created", "conversation 42", "Given up", "1 attempt is used up", "the webhook is paused", ">503<", `aria-current="page">Deliveries`)
	p.lacks(t, "token=", "Replay these", "<b>", stranger.id.String())
	for _, test := range []struct {
		query string
		want  []string
	}{
		{"", []string{held, dead, delivered}},
		{fmt.Sprintf("webhook=%d", crm), []string{held, delivered}},
		{"status=dead", []string{dead}},
		{"status=held&event=contact_updated", []string{held}},
		{"event=message_created", []string{dead, delivered}},
		{"event=message", nil},
		{"key=" + url.QueryEscape("contact:7"), []string{held}},
		{"event_id=" + first.id.String(), []string{dead, delivered}},
		{"event_id=" + stranger.id.String(), nil},
		{fmt.Sprintf("webhook=%d", other), nil},
		{"since=2020-01-01&until=" + url.QueryEscape("2020-01-02 10:00"), nil},
	} {
		if got := b.get("/accounts/1/deliveries?" + test.query).rows(); strings.Join(got, " ") != strings.Join(test.want, " ") {
			t.Errorf("%q gives %v, want %v", test.query, got, test.want)
		}
	}
	for query, problem := range map[string]string{
		"webhook=x": "not the number of a webhook", "webhook=-1": "not the number of a webhook", "status=odd": "no such status", "event_id=1": "not an event’s id",
		"since=yesterday": "like 2h or 7d", "until=" + url.QueryEscape("-5h"): "like 2h or 7d", "since=1h&until=2h": "not after the beginning", "replay=0": "not the number of a replay",
		"event=%00": "no name has",
	} {
		b.get("/accounts/1/deliveries?"+query).shows(t, http.StatusBadRequest, problem)
		b.get("/accounts/1/deliveries/live?"+query).shows(t, http.StatusBadRequest, "The filter is not one")
	}
	b.get("/accounts/1/deliveries?after=odd").shows(t, http.StatusNotFound)
	b.get("/accounts/2/deliveries").shows(t, http.StatusNotFound, "There is no such page")
	b.get("/accounts/2/deliveries/live").shows(t, http.StatusNotFound, "There is no such page")
	s.as(t, domain.RoleOperator, 1).get("/accounts/1/deliveries?status=dead").shows(t, http.StatusOK, "/accounts/1/replays/new?status=dead")
}

func TestDeliveriesInPages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hook := s.hook(t, 1, "CRM", "https://crm.example.com/")
	const all = 107
	for range all {
		st := s.story(t, 1, "message_created", "", hook)
		st.delivered(hook, st.scheduled(), st.started(1, ""), st.succeeded(1))
	}
	b := s.as(t, domain.RoleViewer, 0)
	seen, path, pages := map[string]bool{}, "/accounts/1/deliveries?status=succeeded", 0
	older := regexp.MustCompile(`href="([^"]+)" rel="next"`)
	for path != "" {
		p := b.get(path)
		for _, id := range p.rows() {
			if seen[id] {
				t.Errorf("%s comes twice", id)
			}
			seen[id] = true
		}
		pages++
		if pages > 1 {
			p.shows(t, http.StatusOK, ">Newest<")
			p.lacks(t, "data-live=")
		}
		path = ""
		if found := older.FindStringSubmatch(p.body); found != nil {
			path = strings.ReplaceAll(found[1], "&amp;", "&")
			if !contains(path, "status=succeeded") {
				t.Errorf("the filter is lost: %s", path)
			}
		}
	}
	if len(seen) != all || pages != 3 {
		t.Errorf("%d deliveries on %d pages", len(seen), pages)
	}
}

// stream reads server-sent events.
type stream struct {
	t      *testing.T
	events chan string
	ended  chan struct{}
}

func (b *browser) stream(path string) *stream {
	b.t.Helper()
	r, err := http.NewRequestWithContext(b.t.Context(), http.MethodGet, b.site.URL+path, http.NoBody)
	if err != nil {
		b.t.Fatal(err)
	}
	client := b.Client
	client.Timeout = 0
	answer, err := client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	if kind := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || kind != "text/event-stream" {
		b.t.Fatalf("%s: %d, %s", path, answer.StatusCode, kind)
	}
	st := &stream{b.t, make(chan string, 100), make(chan struct{})}
	go func() {
		defer close(st.ended)
		defer func() { _ = answer.Body.Close() }()
		lines, event := bufio.NewScanner(answer.Body), ""
		for lines.Scan() {
			if line := lines.Text(); line != "" {
				event += line + "\n"
				continue
			}
			st.events <- event
			event = ""
		}
	}()
	b.t.Cleanup(func() { <-st.ended })
	return st
}

// with waits for an event with a text.
func (st *stream) with(text string) string {
	st.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case event := <-st.events:
			if contains(event, text) {
				return event
			}
		case <-deadline:
			st.t.Fatalf("nothing with %q came", text)
		}
	}
}

// Somebody looks, an event arrives, it is delivered: its row comes and changes.
// The stream ends with the process.
func TestDeliveriesAreLive(t *testing.T) {
	t.Parallel()
	stopping := make(chan struct{})
	s := newSite(t, func(c *web.Config) { c.Stopping = stopping })
	address, came := receiver(t)
	s.hook(t, 1, "CRM", address)
	b, b2 := s.as(t, domain.RoleViewer, 1), s.as(t, domain.RoleViewer, 0)
	b.get("/accounts/1/deliveries?event=message_created").shows(t, http.StatusOK, `data-live="/accounts/1/deliveries/live?event=message_created"`, "No delivery fits")
	live := b.stream("/accounts/1/deliveries/live?event=message_created")
	second := b2.stream("/accounts/1/deliveries/live?event=message_created")
	others := b2.stream("/accounts/2/deliveries/live")
	s.relays(t)
	s.exec(t, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{"id":1}'), (1, 'contact_updated', '{"id":2}')`)
	soon(t, came)
	event := live.with("Delivered")
	if !strings.HasPrefix(event, "event: parts\ndata: ") || !contains(event, `<tr id="d-`) || contains(event, "Contact updated") || contains(event, "form_token") {
		t.Errorf("the event is %s", event)
	}
	second.with("Delivered")
	close(stopping)
	soon(t, live.ended)
	soon(t, second.ended)
	soon(t, others.ended)
	if len(others.events) > 1 {
		t.Errorf("another account's page was told of it: %s", <-others.events)
	}
}

// A stream ends once its session does, and nobody has too many.
func TestLiveEndsWithTheSession(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *web.Config) { c.LiveBeat = 50 * time.Millisecond })
	b := s.browser(t)
	id, token := s.newToken(t, domain.RoleViewer, 1)
	b.logIn(token)
	var streams []*stream
	for range 8 {
		streams = append(streams, b.stream("/accounts/1/deliveries/live"))
	}
	p := b.get("/accounts/1/deliveries/live")
	p.shows(t, http.StatusTooManyRequests, "Too many pages are live")
	if p.header.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
	streams[0].with(": here")
	if _, err := s.tokens.Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for _, st := range streams {
		soon(t, st.ended)
	}
}

func indexOf(body, text string) int { return strings.Index(body, text) }
