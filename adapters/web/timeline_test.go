package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

func TestTimeline(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	crm, bot := s.hook(t, 1, "CRM", "https://crm.example.com/hook?token=1"), s.hook(t, 1, "", "https://bot.example.com/hook")
	st := s.story(t, 1, "message_created", "conversation:42", crm, bot)
	id := st.delivered(crm, st.scheduled(), st.started(1, ""), st.failed(1, "503", "<script>alert(1)</script>\nsecond line\x1b[31m"), st.started(2, domain.OutcomeFailed), st.succeeded(2))
	held := domain.Held{At: st.at(time.Second), Reason: domain.HoldOrder, Until: st.at(31 * time.Second)}
	st.delivered(bot, st.scheduled(), held)
	b := s.as(t, domain.RoleOperator, 1)
	p := b.get("/accounts/1/events/" + st.id.String())
	p.shows(t, http.StatusOK, "Message created", "conversation 42", "1.2 KiB", "routed to webhooks", "webhook 99 passed over: disabled", "&lt;i&gt;me&lt;/i&gt;",
		"Attempt 1</strong> ✗ 503 in 48ms", "↻ repeated", "Attempt 2</strong> ✓ 204 in 12ms", "delivered after 2 attempts", "The receiver&#39;s log tells more.",
		"&lt;script&gt;alert(1)&lt;/script&gt;\nsecond line�[31m", "webhook-id: "+domain.NewNotificationID(1, st.id, crm).String(), "Outrider-Delivery: "+id.String(), "Outrider-Previous-Outcome: failed",
		`webhook-signature: <span class="muted">(not kept)</span>`, "held: an earlier delivery of conversation 42 has not succeeded yet; for 30s at most", "https://crm.example.com/hook", "Send again")
	live := b.stream("/accounts/1/events/" + st.id.String() + "/live")
	live.with(`data-state="1.2.7"`)
	p.lacks(t, "<script>alert", "secret of the chat", "token=1", "<i>me")
	if p := b.get("/accounts/1/events/" + id.String()); p.path != "/accounts/1/events/"+st.id.String() {
		t.Errorf("a delivery's id leads to %s", p.path)
	}
	if p := b.get("/accounts/1/events/" + domain.NewNotificationID(1, st.id, bot).String()); p.path != "/accounts/1/events/"+st.id.String() {
		t.Errorf("a webhook-id leads to %s", p.path)
	}
	for _, wrong := range []string{"/accounts/1/events/" + uuid.NewString(), "/accounts/1/events/odd"} {
		b.get(wrong).shows(t, http.StatusNotFound, "There is no such event")
	}
	b.get("/accounts/2/events/"+st.id.String()).shows(t, http.StatusNotFound)
	all := s.as(t, domain.RoleOperator, 0)
	all.get("/accounts/2/events/"+st.id.String()).shows(t, http.StatusNotFound, "There is no such event")
	all.get("/accounts/2/events/"+id.String()).shows(t, http.StatusNotFound, "There is no such event")
	s.as(t, domain.RoleViewer, 1).get("/accounts/1/events/"+st.id.String()).lacks(t, "Send again", "/again")
	st.delivered(bot, domain.Released{At: st.at(31 * time.Second), Reason: domain.ReleaseElapsed})
	s.exec(t, `SELECT nextval('relay.commits')`)
	live.with(`data-state="1.2.8"`)
}

// What others wrote is text wherever it is shown.
func TestHostileTextsAreText(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const hostile = `"><img src=x onerror=alert(1)>` + "\u202e"
	hook := s.hook(t, 1, hostile, "https://crm.example.com/")
	st := s.story(t, 1, hostile, hostile, hook)
	st.delivered(hook, st.scheduled(), st.started(1, ""), st.failed(1, hostile, hostile), domain.Dead{At: st.at(time.Minute), Reason: hostile})
	s.exec(t, `INSERT INTO relay.replays (account_id, selection, requested_by, state) VALUES (1, json_build_object('events', ARRAY[$1::text], 'ordering_key', $1::text), $1, 'finished')`, hostile)
	b := s.as(t, domain.RoleOperator, 1)
	for _, path := range []string{
		"/accounts/1", "/accounts/1/deliveries", "/accounts/1/events/" + st.id.String(), "/accounts/1/replays", "/accounts/1/replays/1", "/accounts/1/replays/new",
		"/accounts/1/deliveries?webhook=%22%3E%3Cimg+src&event=%22%3E%3Cimg+src", "/accounts/1/replays/new?event=%22%3E%3Cimg+src&since=%22%3E%3Cimg+src",
	} {
		p := b.get(path)
		p.lacks(t, "<img", `"onerror`)
		if !contains(p.body, "&lt;img") {
			t.Errorf("%s does not show it", path)
		}
		if contains(p.body, " style=") || contains(p.body, "<style") || strings.Count(p.body, "<script") != strings.Count(p.body, "<script src=") {
			t.Errorf("%s has a script or a style within", path)
		}
		if contains(p.body, "\u202e") {
			t.Errorf("%s turns the direction of writing", path)
		}
	}
}

// An event is sent again: by a replay that is on record, with who asked for it.
func TestSendAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	address, came := receiver(t)
	hook := s.hook(t, 1, "CRM", address)
	other := s.hook(t, 2, "Other", address)
	s.relays(t)
	s.exec(t, `INSERT INTO outbox.events (account_id, event, payload) VALUES (1, 'message_created', '{"id":1}')`)
	first := soon(t, came)
	var event string
	if err := s.db.SQL.QueryRowContext(t.Context(), `SELECT id::text FROM outbox.events`).Scan(&event); err != nil {
		t.Fatal(err)
	}
	path := "/accounts/1/events/" + event
	viewer := s.as(t, domain.RoleViewer, 1)
	viewer.eventually(path, "delivered")
	viewer.post(path+"/again", "webhook", fmt.Sprint(hook)).shows(t, http.StatusForbidden, "Your role does not allow this")
	b := s.as(t, domain.RoleOperator, 1)
	b.get(path).shows(t, http.StatusOK, `action="`+path+`/again"`)
	token := b.token
	b.token = "wrong"
	b.post(path+"/again", "webhook", fmt.Sprint(hook)).shows(t, http.StatusForbidden, "not of your session")
	b.token = token
	b.post(path+"/again", "webhook", fmt.Sprint(other)).shows(t, http.StatusNotFound)
	b.post(path+"/again", "webhook", "x").shows(t, http.StatusBadRequest)
	b.post(path+"/again", "webhook", fmt.Sprint(hook), "odd", "1").shows(t, http.StatusBadRequest, "a field that this page does not know")
	if n := s.count(t, `SELECT count(*) FROM relay.replays`); n != 0 {
		t.Errorf("%d replays were asked for", n)
	}
	p := b.post(path+"/again", "webhook", fmt.Sprint(hook))
	p.shows(t, http.StatusOK, "It is sent to webhook", "Event "+event)
	if !strings.HasPrefix(p.path, "/accounts/1/replays/") {
		t.Errorf("it leads to %s", p.path)
	}
	again := soon(t, came)
	if again.Get("Webhook-Id") != first.Get("Webhook-Id") || again.Get("Outrider-Replay") != strings.TrimPrefix(p.path, "/accounts/1/replays/") {
		t.Errorf("the receiver got %v", again)
	}
	b.eventually(p.path, "Finished").shows(t, http.StatusOK, "1 delivered", "CRM &lt;sync&gt;")
	viewer.get(path).shows(t, http.StatusOK, "scheduled again by replay")
	if n := s.count(t, `SELECT count(*) FROM audit.replays WHERE state = 'finished' AND requested_by LIKE '% for token % (CRM <sync>)'`); n != 1 {
		t.Errorf("%d replays are on record", n)
	}
}
