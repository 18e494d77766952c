package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// Replays are replays as those who ask for them see them.
type Replays interface {
	Plan(ctx context.Context, actor string, s domain.ReplaySelection) (domain.ReplayID, error)
	Request(ctx context.Context, actor string, id domain.ReplayID, run domain.ReplayRun) error
	Pause(ctx context.Context, actor string, id domain.ReplayID) (state string, err error)
	Resume(ctx context.Context, actor string, id domain.ReplayID) (state string, err error)
	Cancel(ctx context.Context, actor string, id domain.ReplayID) (state string, err error)
	// Read gives one, domain.ErrNoReplay where there is none.
	Read(ctx context.Context, id domain.ReplayID) (audit.Replay, error)
	// List gives those of an account below an id, newest first.
	List(ctx context.Context, account domain.AccountID, state string, before domain.ReplayID, limit int) ([]audit.Replay, error)
	Parts(ctx context.Context, id domain.ReplayID) ([]audit.ReplayPart, error)
	Estimate(ctx context.Context, r *audit.Replay, rate float64) (time.Duration, error)
}

const tagReplays = "Replays"

func (v *v1) addReplays() {
	const path = "/accounts/{account_id}/replays"
	body := []int{http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType}
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: path, id: "listReplays", tag: tagReplays, may: domain.Read,
		summary: "List replays and plans", about: "Newest first. Those of several accounts at once are no account's, and on the command line alone.",
	}, v.listReplays)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path, id: "planReplay", tag: tagReplays, may: domain.Operate, status: http.StatusCreated, errors: body,
		summary: "Select what to send again, and see how much that is",
		about: "By when it was routed, or by the events' ids; of that only what fits the rest. The plan has the deliveries to the webhooks that the events were routed to, and to those " +
			"that were passed over because they were disabled. Webhooks that are disabled or deleted now are counted and left out, unless webhook_id names one. Nothing is sent: run the plan, or cancel it.",
	}, v.planReplay)
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: path + "/{replay_id}", id: "getReplay", tag: tagReplays, may: domain.Read,
		summary: "Get a replay and how far it is, or a plan, with what it has by webhook",
	}, v.getReplay)
	v1Add(v, &v1Operation{
		method: http.MethodPost, path: path + "/{replay_id}/run", id: "runReplay", tag: tagReplays, may: domain.Operate, status: http.StatusAccepted, errors: body,
		summary: "Run a plan, once",
		about: "The deliveries go to the plan's webhooks with their present settings, in the order in which the events were routed; with to_webhook_id each event goes once to that webhook instead. " +
			"Nothing is done, and the reason told, where a webhook is disabled or deleted, or where events have no payload any more: 409. A running relay takes it up at once.",
	}, v.runReplay)
	for _, change := range []struct {
		verb, summary, about string
		do                   func(replays Replays, ctx context.Context, actor string, id domain.ReplayID) (string, error)
	}{
		{"pause", "Send nothing more of a replay until it is resumed", "Attempts under way are finished.", Replays.Pause},
		{"resume", "Go on with a paused replay", "", Replays.Resume},
		{"cancel", "End a replay, or drop a plan", "What is scheduled and not finished becomes cancelled, on record; what is not scheduled yet never is; attempts under way are finished.", Replays.Cancel},
	} {
		v1Add(v, &v1Operation{
			method: http.MethodPost, path: path + "/{replay_id}/" + change.verb, id: change.verb + "Replay", tag: tagReplays, may: domain.Operate,
			summary: change.summary, about: change.about, errors: []int{http.StatusConflict},
		}, func(ctx context.Context, in *OfReplay) (*v1ReplayAnswer, error) {
			if _, err := v.replay(ctx, *in); err != nil {
				return nil, err
			}
			if _, err := change.do(v.config.Replays, ctx, accessOf(ctx).Actor(), in.id()); err != nil {
				return nil, err
			}
			return v.replayAnswer(ctx, in.id())
		})
	}
}

// OfReplay is the path of a replay.
type OfReplay struct {
	InAccount
	ReplayID int64 `path:"replay_id" minimum:"1" doc:"The replay, or plan." example:"3"`
}

func (p OfReplay) id() domain.ReplayID { return domain.ReplayID(p.ReplayID) }

// V1Replay is a replay as the API shows it: with the names of the command line
// and of audit.replays.
type V1Replay struct {
	ReplayID    int64           `json:"replay_id" doc:"Its id: Outrider-Replay of its POSTs." example:"3"`
	State       string          `json:"state" doc:"planned, requested, running, paused, cancelling, cancelled or finished." example:"running"`
	AccountID   *int64          `json:"account_id" doc:"Its account." example:"1"`
	RequestedBy string          `json:"requested_by" doc:"Who asked for it: the role of the database, and for whom." example:"web for token 3 (CRM sync)"`
	RequestedAt time.Time       `json:"requested_at" doc:"When it was planned, or then requested." example:"2026-07-01T12:00:00Z"`
	Total       int64           `json:"total" doc:"How many deliveries it has." example:"1200"`
	Scheduled   int64           `json:"scheduled" doc:"How many of them have begun their lives." example:"800"`
	Done        int64           `json:"done" doc:"How many of them are finished, whatever came of them." example:"700"`
	Succeeded   int64           `json:"succeeded" doc:"How many of them succeeded." example:"690"`
	Dead        int64           `json:"dead" doc:"How many of them were given up." example:"10"`
	Cancelled   int64           `json:"cancelled" doc:"How many of them were cancelled." example:"0"`
	Expired     int64           `json:"expired" doc:"How many of them expired." example:"0"`
	Gone        int64           `json:"gone" doc:"How many of them lost their events' payloads before they began." example:"0"`
	ToWebhookID *int64          `json:"to_webhook_id" doc:"The webhook that gets all of it; null for those of the plan." example:"9"`
	Rate        *float64        `json:"rate" doc:"How many deliveries a second at most; null for no bound." example:"50"`
	FinishedAt  *time.Time      `json:"finished_at" doc:"When it was over." example:"2026-07-01T12:10:00Z"`
	Selection   json.RawMessage `json:"selection" doc:"What was selected, as it was asked for; of many event ids the first 100."`
}

func showReplay(r *audit.Replay) V1Replay {
	return V1Replay{
		ReplayID: int64(r.ID), State: r.State, AccountID: orNil(int64(r.AccountID)), RequestedBy: r.RequestedBy, RequestedAt: r.RequestedAt.UTC(),
		Total: r.Total, Scheduled: r.Scheduled, Done: r.Done(), Succeeded: r.Succeeded, Dead: r.Dead, Cancelled: r.Cancelled, Expired: r.Expired, Gone: r.Gone,
		ToWebhookID: orNil(int64(r.ToWebhookID)), Rate: orNil(r.Rate), FinishedAt: orNever(r.FinishedAt), Selection: r.Selection,
	}
}

// v1Plan is a replay with what its plan has.
type v1Plan struct {
	V1Replay
	FirstAt          *time.Time `json:"first_at" doc:"When the first of its events was routed." example:"2026-07-01T08:00:00Z"`
	LastAt           *time.Time `json:"last_at" doc:"When the last of its events was routed." example:"2026-07-01T09:00:00Z"`
	EstimatedSeconds *float64   `json:"estimated_seconds" doc:"About how long it takes, in seconds: by its rate, and by how fast the webhooks with the most deliveries answered lately; null where neither is known." example:"24"`
	Webhooks         []v1Part   `json:"webhooks" doc:"What the plan has by webhook, the most first."`
}

// v1Part is what a plan has for one webhook.
type v1Part struct {
	AccountID  int64     `json:"account_id" doc:"The account." example:"1"`
	WebhookID  int64     `json:"webhook_id" doc:"The webhook." example:"7"`
	Deliveries int64     `json:"deliveries" doc:"How many deliveries." example:"1200"`
	FirstAt    time.Time `json:"first_at" doc:"When the first of their events was routed." example:"2026-07-01T08:00:00Z"`
	LastAt     time.Time `json:"last_at" doc:"When the last of their events was routed." example:"2026-07-01T09:00:00Z"`
	Gone       int64     `json:"gone" doc:"How many were left out because their events have no payload any more." example:"0"`
	PassedOver *string   `json:"passed_over" doc:"The webhook's state, where that is why the plan leaves these deliveries out." example:"disabled"`
}

type v1ReplayAnswer struct{ Body V1Replay }

// replay reads one of an account.
func (v *v1) replay(ctx context.Context, of OfReplay) (audit.Replay, error) {
	replay, err := v.config.Replays.Read(ctx, of.id())
	if err == nil && replay.AccountID != of.account() {
		err = domain.ErrNoReplay
	}
	return replay, err
}

func (v *v1) replayAnswer(ctx context.Context, id domain.ReplayID) (*v1ReplayAnswer, error) {
	replay, err := v.config.Replays.Read(ctx, id)
	if err != nil {
		return nil, err
	}
	return &v1ReplayAnswer{showReplay(&replay)}, nil
}

// plan reads what a replay has. A rate of 0 is that which it has.
func (v *v1) plan(ctx context.Context, replay *audit.Replay, rate float64) (v1Plan, error) {
	plan := v1Plan{V1Replay: showReplay(replay)}
	parts, err := v.config.Replays.Parts(ctx, replay.ID)
	if err != nil {
		return plan, err
	}
	plan.Webhooks = make([]v1Part, len(parts))
	for i := range parts {
		p := &parts[i]
		plan.Webhooks[i] = v1Part{int64(p.AccountID), int64(p.WebhookID), p.Deliveries, p.FirstAt.UTC(), p.LastAt.UTC(), p.Gone, orNil(p.PassedOver)}
		if p.PassedOver != "" || p.Deliveries == 0 {
			continue
		}
		if plan.FirstAt == nil || p.FirstAt.Before(*plan.FirstAt) {
			plan.FirstAt = orNever(p.FirstAt)
		}
		if plan.LastAt == nil || p.LastAt.After(*plan.LastAt) {
			plan.LastAt = orNever(p.LastAt)
		}
	}
	if rate == 0 {
		rate = replay.Rate
	}
	estimate, err := v.config.Replays.Estimate(ctx, replay, rate)
	plan.EstimatedSeconds = orNil(estimate.Seconds())
	return plan, err
}

func (v *v1) listReplays(ctx context.Context, in *struct {
	InAccount
	State string `query:"state" enum:"planned,requested,running,paused,cancelling,cancelled,finished" doc:"Only in this state." example:"running"`
	Paging
}) (*v1List[V1Replay], error) {
	const list = "replays"
	before, err := in.place(list, 1)
	if err != nil {
		return nil, err
	}
	replays, err := v.config.Replays.List(ctx, in.account(), in.State, domain.ReplayID(before[0]), in.Limit+1)
	if err != nil {
		return nil, err
	}
	next := ""
	if len(replays) > in.Limit {
		replays = replays[:in.Limit]
		next = place{list, []int64{int64(replays[in.Limit-1].ID)}}.cursor()
	}
	return v1ListOf(&in.Paging, replays, showReplay, next), nil
}

// v1Select is what to send again.
type v1Select struct {
	_ struct{} `additionalProperties:"false"`

	Since       optional[time.Time] `json:"since,omitzero" doc:"What was routed from then on, in RFC 3339. It takes this or event_ids." example:"2026-07-01T08:00:00Z"`
	Until       optional[time.Time] `json:"until,omitzero" doc:"And before then. Left out: now." example:"2026-07-01T09:00:00Z"`
	EventIDs    optional[[]string]  `json:"event_ids,omitzero" minItems:"1" maxItems:"10000" doc:"These events." example:"[\"0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f\"]"`
	WebhookID   optional[int64]     `json:"webhook_id,omitzero" minimum:"1" maximum:"9007199254740991" doc:"Only to this webhook." example:"7"`
	Events      optional[[]string]  `json:"events,omitzero" minItems:"1" maxItems:"1000" doc:"Only events of these names." example:"[\"message_created\"]"`
	OrderingKey optional[string]    `json:"ordering_key,omitzero" doc:"Only events of this ordering key; empty for those of none." example:"conversation:346"`
	Statuses    v1Statuses          `json:"statuses,omitzero" minItems:"1" maxItems:"9" doc:"Only where that became of the latest delivery to the webhook; or passed_over: none was made; unknown: an attempt is; undelivered: none succeeded or is under way." example:"[\"undelivered\"]"`
	Rate        optional[float64]   `json:"rate,omitzero" exclusiveMinimum:"0" maximum:"1000000" doc:"How many deliveries a second, for the estimate alone." example:"50"`
}

func (b *v1Select) selection(account domain.AccountID, f *fields) domain.ReplaySelection {
	s := domain.ReplaySelection{AccountID: account}
	take(f, "since", b.Since, &s.Since)
	take(f, "until", b.Until, &s.Until)
	var ids []string
	take(f, "event_ids", b.EventIDs, &ids)
	seen := map[uuid.UUID]bool{}
	for i, text := range ids {
		id, err := uuid.Parse(text)
		if err != nil {
			f.add(fmt.Sprintf("event_ids[%d]", i), "is not a UUID")
		} else if !seen[id] {
			seen[id] = true
			s.EventIDs = append(s.EventIDs, id)
		}
	}
	var webhook int64
	take(f, "webhook_id", b.WebhookID, &webhook)
	s.WebhookID = domain.WebhookID(webhook)
	take(f, "events", b.Events, &s.Events)
	take(f, "ordering_key", b.OrderingKey, &b.OrderingKey.value)
	if b.OrderingKey.given {
		s.OrderingKey = &b.OrderingKey.value
	}
	take(f, "statuses", b.Statuses.optional, &s.Statuses)
	switch byTime := b.Since.given || b.Until.given; {
	case b.EventIDs.given && byTime:
		f.add("event_ids", "is given, and a range of time too: give one")
	case !b.EventIDs.given && !b.Since.given:
		f.add("since", "is missing, and event_ids too: give one")
	case b.Since.given && b.Until.given && !s.Since.Before(s.Until):
		f.add("since", "is not before until")
	}
	return s
}

// v1Planned answers with a plan that is new.
type v1Planned struct {
	Location string `header:"Location" doc:"The plan." example:"/api/outrider/v1/accounts/1/replays/3"`
	Body     v1Plan
}

func (v *v1) planReplay(ctx context.Context, in *struct {
	InAccount
	Body v1Select
}) (*v1Planned, error) {
	var f fields
	selection := in.Body.selection(in.account(), &f)
	var rate float64
	take(&f, "rate", in.Body.Rate, &rate)
	if now := v.config.Clock(); in.Body.Since.given && !in.Body.Until.given && !selection.Since.Before(now) {
		f.add("since", "is not before now")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	id, err := v.config.Replays.Plan(ctx, accessOf(ctx).Actor(), selection)
	if err != nil {
		return nil, err
	}
	replay, err := v.config.Replays.Read(ctx, id)
	if err != nil {
		return nil, err
	}
	plan, err := v.plan(ctx, &replay, rate)
	if err != nil {
		return nil, err
	}
	return &v1Planned{fmt.Sprintf("%s/accounts/%d/replays/%d", v1Base, in.AccountID, id), plan}, nil
}

func (v *v1) getReplay(ctx context.Context, in *OfReplay) (*struct{ Body v1Plan }, error) {
	replay, err := v.replay(ctx, *in)
	if err != nil {
		return nil, err
	}
	plan, err := v.plan(ctx, &replay, 0)
	if err != nil {
		return nil, err
	}
	return &struct{ Body v1Plan }{plan}, nil
}

// v1Run is how to run a plan.
type v1Run struct {
	_ struct{} `additionalProperties:"false"`

	ToWebhookID optional[int64]   `json:"to_webhook_id,omitzero" minimum:"1" maximum:"9007199254740991" doc:"Each event once to this webhook of the account, not to those of the plan." example:"9"`
	Rate        optional[float64] `json:"rate,omitzero" exclusiveMinimum:"0" maximum:"1000000" doc:"So many deliveries a second at most, retries not counted. Left out: as fast as they are taken." example:"50"`
}

func (v *v1) runReplay(ctx context.Context, in *struct {
	OfReplay
	Body *v1Run
}) (*v1ReplayAnswer, error) {
	if _, err := v.replay(ctx, in.OfReplay); err != nil {
		return nil, err
	}
	var run domain.ReplayRun
	if in.Body != nil {
		var f fields
		var to int64
		take(&f, "to_webhook_id", in.Body.ToWebhookID, &to)
		take(&f, "rate", in.Body.Rate, &run.Rate)
		if err := f.err(); err != nil {
			return nil, err
		}
		run.ToWebhookID = domain.WebhookID(to)
	}
	if run.ToWebhookID != 0 {
		_, err := v.webhook(ctx, OfWebhook{in.InAccount, int64(run.ToWebhookID)})
		if errors.Is(err, domain.ErrWebhookGone) {
			return nil, invalid(v1Reason{"body.to_webhook_id", fmt.Sprintf("there is no webhook %d in the account", run.ToWebhookID)})
		}
		if err != nil {
			return nil, err
		}
	}
	if err := v.config.Replays.Request(ctx, accessOf(ctx).Actor(), in.id(), run); err != nil {
		return nil, err
	}
	return v.replayAnswer(ctx, in.id())
}
