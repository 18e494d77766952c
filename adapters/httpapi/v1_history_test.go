package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// past is a history of accounts 7 and 8, as a relay leaves it.
type past struct {
	r *v1Rig
	// hook is the webhook of account 7, other that of account 8.
	hook, other int64
	// delivered has a first attempt that failed, dead one that was given up,
	// nobody no subscriber; waiting is not routed; foreign is account 8's.
	delivered, dead, nobody, waiting, foreign uuid.UUID
	start                                     time.Time
}

func newPast(t *testing.T, r *v1Rig) *past {
	t.Helper()
	p := &past{r: r, start: time.Now().UTC().Truncate(time.Hour).Add(-90 * time.Minute)}
	p.hook = p.register("/accounts/7/webhooks", "CRM")
	p.other = p.register("/accounts/8/webhooks", "other")
	for i, id := range []*uuid.UUID{&p.delivered, &p.dead, &p.nobody, &p.foreign, &p.waiting} {
		*id = uuid.Must(uuid.NewV7())
		account, name, key := 7, "message_created", "conversation:346"
		if id == &p.foreign {
			account = 8
		}
		if id == &p.nobody {
			name, key = "contact_created", ""
		}
		r.exec(`INSERT INTO outbox.events (account_id, event, payload, id, ordering_key, metadata) VALUES ($1, $2, '{"secret":"payload"}', $3, $4, '{"from":"test"}')`, account, name, id.String(), key)
		if id == &p.waiting {
			break
		}
		routing, hook, deliveries := "routed", p.hook, 1
		if id == &p.foreign {
			hook = p.other
		}
		if id == &p.nobody {
			routing, deliveries = "no_subscriber", 0
		}
		seq := int64(i + 1)
		r.exec(`INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
VALUES ($1::bigint, $1::bigint - 1, '3:3:', 0, 0, 0, $1::bigint, 0, $1::bigint, $1::bigint, $1::bigint, 1, $2)`, seq, p.start.Add(time.Duration(seq)*time.Minute))
		p.entry(seq, 0, account, 1, 0, "routed", *id, object{"routing": routing, "event": name, "ordering_key": key, "config_version": 1, "body_bytes": 20, "deliveries": deliveries, "skips": []object{{"webhook_id": 99, "reason": "inbox"}}})
		if routing != "routed" {
			continue
		}
		p.entry(seq, hook, account, 1, time.Millisecond, "scheduled", *id, object{"webhook_version": 1})
		p.entry(seq, hook, account, 2, time.Second, "attempt_started", *id, object{"attempt": 1, "webhook_version": 1, "timeout_ms": 5000})
		p.entry(seq, hook, account, 3, 2*time.Second, "attempt_failed", *id, object{"attempt": 1, "status_code": 503, "error_class": "status", "error_detail": "503 Service Unavailable", "duration_us": 250000, "remote_ip": "192.0.2.1", "retry_at": p.start.Add(5 * time.Second)})
		if id == &p.dead {
			p.entry(seq, hook, account, 4, 3*time.Second, "dead", *id, object{"reason": "attempts_used_up"})
			continue
		}
		p.entry(seq, hook, account, 4, 5*time.Second, "attempt_started", *id, object{"attempt": 2, "webhook_version": 1, "timeout_ms": 5000, "previous_outcome": "failed"})
		p.entry(seq, hook, account, 5, 6*time.Second, "attempt_succeeded", *id, object{"attempt": 2, "status_code": 200, "duration_us": 12500, "remote_ip": "192.0.2.1"})
	}
	for hour := range 3 {
		for _, of := range []struct{ account, hook int64 }{{7, p.hook}, {8, p.other}} {
			r.exec(`INSERT INTO relay.webhook_stats (webhook_id, account_id, hour, slot, epoch, succeeded, failed, unknown, dead, expired, cancelled, first_seq, latency, latency_n, scheduled)
VALUES ($1, $2, $3, -1, 1, 3, 1, 0, 1, 0, 0, 1, '{10}', '{4}', 5)`, of.hook, of.account, p.start.Truncate(time.Hour).Add(-time.Duration(hour)*30*time.Hour))
		}
	}
	return p
}

func (p *past) register(path, name string) int64 {
	p.r.t.Helper()
	a := p.r.ok(http.StatusCreated, http.MethodPost, path, fmt.Sprintf(`{"url": "https://example.com/%s", "name": %q}`, name, name))
	return int64(of[float64](a.at("id")))
}

func (p *past) entry(seq, hook int64, account, version int, after time.Duration, kind string, event uuid.UUID, data object) {
	p.r.t.Helper()
	text, err := json.Marshal(data)
	if err != nil {
		p.r.t.Fatal(err)
	}
	var id, delivery, routing any
	if version == 1 {
		id = event.String()
		if hook != 0 {
			delivery = p.deliveryOf(seq, hook, account, event).String()
		} else {
			routing = data["routing"]
		}
	}
	p.r.exec(`INSERT INTO relay.log (event_seq, webhook_id, replay_id, account_id, pos, writer, at, version, type, data, event_id, delivery_id, routing) VALUES ($1, $2, 0, $3, $4, 1, $5, $6, $7, $8, $9, $10, $11)`,
		seq, hook, account, seq<<20+hook<<10+int64(version), p.start.Add(time.Duration(seq)*time.Minute+after), version, kind, string(text), id, delivery, routing)
}

func (p *past) deliveryOf(seq, hook int64, account int, event uuid.UUID) domain.DeliveryID {
	return domain.NewDeliveryID(domain.NewNotificationID(domain.AccountID(account), event, domain.WebhookID(hook)), seq, 0)
}

func TestV1History(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	p := newPast(t, r)
	after := func(seq int, d time.Duration) string {
		return p.start.Add(time.Duration(seq)*time.Minute + d).Format(time.RFC3339Nano)
	}
	for _, list := range []struct {
		query  string
		member string
		want   []any
	}{
		{"events?", "event_id", []any{p.waiting, p.nobody, p.dead, p.delivered}},
		{"events?status=no_subscriber", "event_id", []any{p.nobody}},
		{"events?status=waiting", "event_id", []any{p.waiting}},
		{"events?event=contact_created", "event_id", []any{p.nobody}},
		{"events?event_id=" + p.dead.String(), "event_id", []any{p.dead}},
		{"events?event_id=" + p.foreign.String(), "event_id", []any{}},
		{"events?ordering_key=conversation:346&status=routed", "event_id", []any{p.dead, p.delivered}},
		{"events?ordering_key=", "event_id", []any{p.nobody}},
		{fmt.Sprintf("events?webhook=%d", p.hook), "event_id", []any{p.dead, p.delivered}},
		{fmt.Sprintf("events?webhook=%d", p.other), "event_id", []any{}},
		{"events?until=" + after(2, 0), "event_id", []any{p.delivered}},
		{"events?since=" + after(2, 0) + "&status=routed", "event_id", []any{p.dead}},
		{"deliveries?", "event_id", []any{p.dead, p.delivered}},
		{"deliveries?status=dead", "event_id", []any{p.dead}},
		{"deliveries?status=held", "event_id", []any{}},
		{"deliveries?replay=3", "event_id", []any{}},
		{"attempts?", "attempt", []any{1.0, 2.0, 1.0}},
		{"attempts?outcome=succeeded", "attempt", []any{2.0}},
		{"attempts?status=failed", "event_id", []any{p.dead, p.delivered}},
		{fmt.Sprintf("webhook-changes?webhook=%d", p.hook), "change", []any{"registered"}},
		{"webhook-changes?change=updated", "change", []any{}},
		{"webhook-changes?until=2020-01-01T00:00:00Z", "change", []any{}},
		{"health?", "webhook_id", []any{float64(p.hook)}},
		{fmt.Sprintf("health?webhook=%d", p.other), "webhook_id", []any{}},
		{"stats?", "webhook_id", []any{float64(p.hook)}},
		{"stats?since=2001-01-01T00:00:00Z", "webhook_id", []any{float64(p.hook), float64(p.hook), float64(p.hook)}},
		{"stats?since=2001-01-01T00:00:00Z&until=2002-01-01T00:00:00Z", "webhook_id", []any{}},
		{fmt.Sprintf("stats?webhook=%d", p.other), "webhook_id", []any{}},
	} {
		for _, limit := range []int{50, 1} {
			var got []any
			for _, record := range r.walk(fmt.Sprintf("/accounts/7/%s&limit=%d", list.query, limit), limit) {
				got = append(got, record[list.member])
				if record["account_id"] != 7.0 {
					t.Errorf("%s shows %v", list.query, record)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(list.want) && len(got)+len(list.want) > 0 {
				t.Errorf("%s, in pages of %d, has %v, want %v", list.query, limit, got, list.want)
			}
		}
	}
	for _, wrong := range []string{
		"events?status=dead", "events?since=noon", "events?since=2026-07-01", "events?since=2026-07-02T00:00:00Z&until=2026-07-01T00:00:00Z", "events?event_id=17",
		"events?event_id=00000000-0000-0000-0000-000000000000", "events?webhook=0", "events?replay=1", "events?event=%00", "events?event=", "deliveries?replay=x", "deliveries?outcome=failed",
		"attempts?outcome=failed&status=failed", "attempts?outcome=dead", "webhook-changes?change=x", "webhook-changes?event=x", "health?since=2026-07-01T00:00:00Z", "stats?status=x",
		"stats?since=2026-07-02T00:00:00Z&until=2026-07-01T00:00:00Z", "deliveries?cursor=ZXZlbnRzIDE", "webhook-changes?cursor=Y2hhbmdlcyA5MjIzMzcyMDM2ODU0Nzc1ODA3IDcgMQ",
	} {
		r.refuses(http.StatusUnprocessableEntity, []string{`"field":"query.`}, http.MethodGet, "/accounts/7/"+wrong, "")
	}
}

func TestV1Trace(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	p := newPast(t, r)
	delivery := p.deliveryOf(1, p.hook, 7, p.delivered)
	notification := domain.NewNotificationID(7, p.delivered, domain.WebhookID(p.hook))

	event := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/events/"+p.delivered.String(), "")
	if event.at("routing") != "routed" || event.at("delivery_count") != 1.0 || event.at("seq") != 1.0 || of[object](event.at("metadata"))["from"] != "test" || strings.Contains(event.text, "secret") {
		t.Errorf("the event is %s", event.text)
	}
	var first string
	for _, id := range []uuid.UUID{p.delivered, delivery, notification} {
		a := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/events/"+id.String()+"/timeline", "")
		if first == "" {
			first = a.text
		}
		if a.text != first || len(a.data()) != 1 {
			t.Errorf("the timeline of %s is %s", id, a.text)
		}
	}
	trace := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/events/"+p.delivered.String()+"/timeline", "").data()[0]
	deliveries := of[[]any](trace["deliveries"])
	one := of[object](deliveries[0])
	var kinds []string
	for _, e := range of[[]any](one["timeline"]) {
		kinds = append(kinds, fmt.Sprint(of[object](e)["type"]))
	}
	if got := strings.Join(kinds, " "); len(deliveries) != 1 || got != "scheduled attempt_started attempt_failed attempt_started attempt_succeeded" || len(of[[]any](one["attempts"])) != 2 || one["webhook_name"] != "CRM" {
		t.Errorf("the trace is %v", trace)
	}
	if skips := of[[]any](trace["skips"]); len(skips) != 1 || of[object](skips[0])["reason"] != "inbox" {
		t.Errorf("it skips %v", skips)
	}
	single := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/deliveries/"+delivery.String(), "")
	if fmt.Sprint(single.body) != fmt.Sprint(one) {
		t.Errorf("the delivery is %s, in the trace %v", single.text, one)
	}
	if a := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/events/"+p.waiting.String()+"/timeline", ""); of[object](a.data()[0]["event"])["config_version"] != nil {
		t.Errorf("what waits is %s", a.text)
	}

	// Inserted again: the event is the first, the timeline has both.
	r.exec(`INSERT INTO outbox.events (account_id, event, payload, id) VALUES (7, 'message_updated', '{}', $1)`, p.delivered.String())
	if a := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/events/"+p.delivered.String(), ""); a.at("seq") != 1.0 {
		t.Errorf("the event is %s", a.text)
	}
	if a := r.ok(http.StatusOK, http.MethodGet, "/accounts/7/events/"+p.delivered.String()+"/timeline", ""); len(a.data()) != 2 {
		t.Errorf("the timeline is %s", a.text)
	}

	// What is another account's is not there, by no id.
	foreign := p.deliveryOf(4, p.other, 8, p.foreign)
	r.ok(http.StatusOK, http.MethodGet, "/accounts/8/deliveries/"+foreign.String(), "")
	for _, path := range []string{
		"events/" + p.foreign.String(), "events/" + p.foreign.String() + "/timeline", "events/" + foreign.String() + "/timeline", "deliveries/" + foreign.String(),
		"deliveries/" + notification.String(), "deliveries/" + uuid.Max.String(), "events/" + delivery.String(), "events/" + uuid.Nil.String(), "events/" + uuid.Nil.String() + "/timeline",
	} {
		r.refuses(http.StatusNotFound, []string{"there is no"}, http.MethodGet, "/accounts/7/"+path, "")
	}
	for _, path := range []string{"events/17", "events/17/timeline", "deliveries/x"} {
		r.refuses(http.StatusUnprocessableEntity, []string{"path."}, http.MethodGet, "/accounts/7/"+path, "")
	}
	r.exec(`INSERT INTO relay.retentions (actor, what, action, storage, lower, upper, at) VALUES ('relay', 'log', 'erased', 'relay.log_1', 1, 2, '2026-07-01Z')`)
	r.refuses(http.StatusNotFound, []string{"or no more", "2026-07-01"}, http.MethodGet, "/accounts/7/events/"+uuid.Max.String(), "")
}

func TestV1Replays(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	p := newPast(t, r)
	const replays = "/accounts/7/replays"
	plan := r.ok(http.StatusCreated, http.MethodPost, replays, fmt.Sprintf(`{"event_ids": [%q, %q, %[2]q], "statuses": ["dead", "succeeded"], "rate": 0.5}`, p.delivered, p.dead))
	path := strings.TrimPrefix(plan.header.Get("Location"), v1Base)
	if plan.at("state") != "planned" || plan.at("total") != 2.0 || plan.at("estimated_seconds") != 4.0 || plan.at("account_id") != 7.0 || plan.at("first_at") == nil || path != fmt.Sprintf("%s/%v", replays, plan.at("replay_id")) {
		t.Errorf("the plan, at %s, is %s", path, plan.text)
	}
	parts := of[[]any](plan.at("webhooks"))
	if part := of[object](parts[0]); len(parts) != 1 || part["deliveries"] != 2.0 || part["webhook_id"] != float64(p.hook) || part["passed_over"] != nil {
		t.Errorf("it has %v", parts)
	}
	if by, _ := plan.at("requested_by").(string); !strings.HasSuffix(by, " for token 1 (test administrator)") {
		t.Errorf("it was requested by %s", by)
	}
	r.refuses(http.StatusConflict, []string{"cannot be paused: it is planned"}, http.MethodPost, path+"/pause", "")
	r.refuses(http.StatusUnprocessableEntity, []string{"body.to_webhook_id"}, http.MethodPost, path+"/run", fmt.Sprintf(`{"to_webhook_id": %d}`, p.other))
	for _, body := range []string{`{"rate": 0}`, `{"rate": -1}`, `{"rate": null}`, `{"rate": "5"}`, `{"to_webhook_id": 0}`, `{"when": 1}`} {
		r.refuses(http.StatusUnprocessableEntity, []string{`"field":"body.`}, http.MethodPost, path+"/run", body)
	}
	run := r.ok(http.StatusAccepted, http.MethodPost, path+"/run", fmt.Sprintf(`{"to_webhook_id": %d, "rate": 50}`, p.hook))
	if run.at("state") != "requested" || run.at("rate") != 50.0 || run.at("to_webhook_id") != float64(p.hook) || run.at("done") != 0.0 {
		t.Errorf("it is %s", run.text)
	}
	r.refuses(http.StatusConflict, []string{"ran already", `"advice"`}, http.MethodPost, path+"/run", "")
	for _, step := range []struct{ action, state string }{{"pause", "paused"}, {"resume", "running"}, {"cancel", "cancelling"}} {
		if a := r.ok(http.StatusOK, http.MethodPost, path+"/"+step.action, ""); a.at("state") != step.state {
			t.Errorf("after %s it is %v", step.action, a.at("state"))
		}
	}
	if a := r.ok(http.StatusOK, http.MethodGet, path, ""); a.at("state") != "cancelling" || len(of[[]any](a.at("webhooks"))) != 1 {
		t.Errorf("it is %s", a.text)
	}

	for range 3 {
		r.ok(http.StatusCreated, http.MethodPost, replays, fmt.Sprintf(`{"event_ids": [%q], "webhook_id": %d, "ordering_key": "conversation:346", "events": ["message_created"]}`, p.dead, p.hook))
	}
	if got := r.walk(replays+"?limit=2", 2); len(got) != 4 {
		t.Errorf("there are %d replays", len(got))
	}
	if got := r.walk(replays+"?state=planned&limit=1", 1); len(got) != 3 {
		t.Errorf("there are %d plans", len(got))
	}

	// What cannot be selected, and why.
	for _, refused := range []struct{ words, body string }{
		{`"field":"body.since"`, `{}`},
		{`"field":"body.since"`, `{"until": "2026-07-01T00:00:00Z"}`},
		{`"field":"body.since"`, `{"since": "2126-07-01T00:00:00Z"}`},
		{`"field":"body.since"`, `{"since": "2026-07-02T00:00:00Z", "until": "2026-07-01T00:00:00Z"}`},
		{`"field":"body.since"`, `{"since": "noon"}`},
		{`"field":"body.since"`, `{"since": null}`},
		{`"field":"body.event_ids"`, `{"event_ids": []}`},
		{`"field":"body.event_ids"`, fmt.Sprintf(`{"event_ids": [%q], "since": "2026-07-01T00:00:00Z"}`, p.dead)},
		{`"field":"body.event_ids[1]"`, fmt.Sprintf(`{"event_ids": [%q, "17"]}`, p.dead)},
		{`"field":"body.statuses[0]"`, fmt.Sprintf(`{"event_ids": [%q], "statuses": ["lost"]}`, p.dead)},
		{`"field":"body.rate"`, fmt.Sprintf(`{"event_ids": [%q], "rate": 0}`, p.dead)},
		{`"field":"body.account_id"`, fmt.Sprintf(`{"event_ids": [%q], "account_id": 8}`, p.dead)},
		{"no routed event has the id " + p.foreign.String(), fmt.Sprintf(`{"event_ids": [%q]}`, p.foreign)},
		{"no delivery is selected", fmt.Sprintf(`{"event_ids": [%q]}`, p.nobody)},
		{fmt.Sprintf("no webhook %d in account 7", p.other), fmt.Sprintf(`{"event_ids": [%q], "webhook_id": %d}`, p.dead, p.other)},
		{"no delivery is selected", `{"since": "2026-07-01T00:00:00Z", "until": "2026-07-02T00:00:00Z"}`},
	} {
		r.refuses(http.StatusUnprocessableEntity, []string{refused.words}, http.MethodPost, replays, refused.body)
	}
	// The webhook is disabled: nothing is left to be sent to it.
	r.ok(http.StatusOK, http.MethodPost, fmt.Sprintf("/accounts/7/webhooks/%d/disable", p.hook), "")
	r.refuses(http.StatusConflict, []string{"disabled"}, http.MethodPost, replays, fmt.Sprintf(`{"event_ids": [%q]}`, p.dead))

	// Another account's, one of several, and none at all.
	r.exec(`UPDATE relay.replays SET account_id = NULL WHERE replay_id = 2`)
	for _, missing := range []string{"/accounts/8/replays/1", replays + "/2", replays + "/99"} {
		r.refuses(http.StatusNotFound, []string{"no such replay"}, http.MethodGet, missing, "")
		for _, action := range []string{"run", "pause", "resume", "cancel"} {
			r.refuses(http.StatusNotFound, []string{"no such replay"}, http.MethodPost, missing+"/"+action, "")
		}
	}
	if got := len(r.walk("/accounts/8/replays", 50)); got != 0 {
		t.Errorf("account 8 has %d replays", got)
	}
}

func TestV1Relays(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	r.exec(`INSERT INTO relay.relays (name, version, recorder) VALUES ('host', '1', 0)`)
	r.exec(`INSERT INTO relay.relays (name, version, recorder, fenced_at) VALUES ('gone', '1', 0, now())`)
	for query, want := range map[string]int{"": 2, "?all=false": 2, "?all=true": 3} { // with what nobody has
		a := r.ok(http.StatusOK, http.MethodGet, "/relays"+query, "")
		if got := len(a.data()); got != want || a.data()[0]["name"] != "host" || a.data()[want-1]["state"] != "unowned" {
			t.Errorf("relays%s are %s", query, a.text)
		}
	}
	r.refuses(http.StatusUnprocessableEntity, []string{"query.all"}, http.MethodGet, "/relays?all=perhaps", "")
}
