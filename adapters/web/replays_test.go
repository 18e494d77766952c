package web_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// A plan is made of a filtered list, looked at, run, paused, and cancelled.
func TestReplays(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	crm, bot, third := s.hook(t, 1, "CRM", "https://crm.example.com/"), s.hook(t, 1, "BOT", "https://bot.example.com/"), s.hook(t, 1, "NEW", "https://new.example.com/")
	stranger := s.hook(t, 2, "Other", "https://other.example.com/")
	s.exec(t, `INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
SELECT no + 1, no, pg_current_snapshot(), 0, 0, 0, 99, 0, 1, 99, 1, 7, now() - interval '1 minute' FROM relay.batches ORDER BY no DESC LIMIT 1`)
	for range 3 {
		st := s.story(t, 1, "message_created", "conversation:1", crm, bot)
		st.delivered(crm, st.scheduled(), st.started(1, ""), st.succeeded(1))
		st.delivered(bot, st.scheduled(), st.started(1, ""), st.failed(1, "503", "x"), domain.Dead{At: st.at(time.Minute), Reason: domain.DeadAttempts})
	}
	viewer, b := s.as(t, domain.RoleViewer, 1), s.as(t, domain.RoleOperator, 1)
	b.get("/accounts/1/replays").shows(t, http.StatusOK, "No replays yet", "Plan a replay")
	viewer.get("/accounts/1/replays").lacks(t, "Plan a replay")
	viewer.get("/accounts/1/replays/new").shows(t, http.StatusForbidden)
	p := b.get(fmt.Sprintf("/accounts/1/replays/new?webhook=%d&status=dead&event=message_created&key=conversation:1", bot))
	p.shows(t, http.StatusOK, `name="since" value="24h"`, fmt.Sprintf(`value="%d" selected`, bot), `value="dead" checked`, `name="events" value="message_created"`, `value="conversation:1"`)
	for _, test := range []struct {
		fields  []string
		problem string
	}{
		{nil, "Say since when"},
		{[]string{"since", "soon"}, "like 2h or 7d"},
		{[]string{"since", "1h", "event_ids", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"}, "leave the range of time empty"},
		{[]string{"event_ids", "x<y"}, "“x&lt;y” is not an event’s id"},
		{[]string{"since", "1h", "webhook", fmt.Sprint(stranger)}, "No webhook"},
		{[]string{"since", "1h", "events", "contact_created"}, "No delivery is selected"},
		{[]string{"event_ids", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"}, "No routed event has the id"},
	} {
		b.post("/accounts/1/replays/new", test.fields...).shows(t, http.StatusUnprocessableEntity, test.problem, "Make the plan")
	}
	b.post("/accounts/1/replays/new", "since", "1h", "status", "odd").shows(t, http.StatusBadRequest)
	if n := s.count(t, `SELECT count(*) FROM relay.replays`); n != 0 {
		t.Errorf("%d plans are there", n)
	}

	p = b.post("/accounts/1/replays/new", "since", "1h", "status", "dead", "status", "held", "webhook", fmt.Sprint(bot), "events", "message_created, contact_created")
	p.shows(t, http.StatusOK, "Plan ", "Planned", "3 deliveries", "BOT", "Send 3 deliveries", "held or given up", "named message_created, contact_created", "Drop the plan")
	plan := p.path
	viewer.get(plan).lacks(t, "Drop the plan", "Send 3")
	viewer.post(plan+"/run").shows(t, http.StatusForbidden)
	for _, step := range []string{"", "/live"} {
		s.as(t, domain.RoleOperator, 2).get(plan+step).shows(t, http.StatusNotFound)
		s.as(t, domain.RoleOperator, 0).get(strings.Replace(plan, "/1/", "/2/", 1)+step).shows(t, http.StatusNotFound)
	}
	for _, step := range []string{"/run", "/pause", "/resume", "/cancel"} {
		all := s.as(t, domain.RoleOperator, 0)
		all.get("/accounts")
		all.post(strings.Replace(plan, "/1/", "/2/", 1)+step).shows(t, http.StatusNotFound)
	}
	b.post(plan+"/run", "rate", "fast").shows(t, http.StatusUnprocessableEntity, "Write the rate as a number")
	b.post(plan+"/run", "to", fmt.Sprint(stranger)).shows(t, http.StatusNotFound)
	b.post(plan+"/pause").shows(t, http.StatusConflict)
	b.post(plan+"/run", "to", fmt.Sprint(third), "rate", "2.5").shows(t, http.StatusOK, "Begins", "0</strong> of 3 deliveries", fmt.Sprintf("sent to webhook %d instead", third), "2.5 a second", "Pause", "Cancel it…", `data-live="`+plan+`/live"`)
	b.post(plan+"/run").shows(t, http.StatusConflict, "ran already")
	live := viewer.stream(plan + "/live")
	live.with(`data-state="requested"`)
	b.post(plan+"/pause").shows(t, http.StatusOK, "is paused", "Go on")
	live.with(`data-state="paused"`)
	b.post(plan+"/resume").shows(t, http.StatusOK, "goes on", "Pause")
	s.exec(t, `UPDATE relay.replays SET state = 'running', scheduled = 2, succeeded = 1`)
	live.with(`33 %`)
	b.get(plan).shows(t, http.StatusOK, "Running", "1 delivered", "1 under way", "1 to come")
	b.post(plan+"/cancel").shows(t, http.StatusOK, "is cancelled")
	second := b.post("/accounts/1/replays/new", "since", "1h").path
	b.get("/accounts/1/replays").shows(t, http.StatusOK, `href="`+second+`">Plan`, `href="`+plan+`">Replay`, "6 deliveries")
	b.post(second+"/cancel").shows(t, http.StatusOK, "Cancelled")
	b.get("/accounts/1/replays/99").shows(t, http.StatusNotFound)
	b.get("/accounts/1/replays/odd").shows(t, http.StatusNotFound)
	b.get("/accounts/1/replays?before=1").shows(t, http.StatusOK, "There are no older ones", ">Newest<")
}
