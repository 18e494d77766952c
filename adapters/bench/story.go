package bench

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// story is what becomes of a delivery.
type story struct {
	// share of 100,000 deliveries. The first story has what the others leave.
	share int
	tell  func(*teller)
}

// stories are what a month brings: most is delivered at once. Those that last
// for days are cut where the month ends, and wait then.
var stories = []story{
	{0, func(t *teller) { t.delivered() }},
	{4000, func(t *teller) { t.failed(1, unavailable); t.delivered() }},
	{1500, func(t *teller) { t.failed(1, timedOut); t.failed(1, unavailable); t.delivered() }},
	{2000, func(t *teller) { t.held(domain.HoldOrder, 4*time.Second, domain.ReleaseTurn); t.delivered() }},
	{1000, func(t *teller) { t.held(domain.HoldPaused, 3*time.Hour, domain.ReleaseResumed); t.delivered() }},
	{500, func(t *teller) { t.failed(3, refused); t.delivered() }},
	{500, func(t *teller) { t.lost(); t.delivered() }},
	{300, func(t *teller) { t.failed(domain.DefaultRetryPolicy.MaxAttempts(), unavailable); t.dead() }},
	{100, func(t *teller) { t.failed(4, refused); t.cancelled() }},
	{100, func(t *teller) { t.expired() }},
}

const allShares = 100_000

// monthSalt is that of all responses.
var monthSalt = [16]byte([]byte("sixteen of salt."))

var (
	unavailable = domain.Outcome{
		Kind: domain.OutcomeFailed, StatusCode: 503, Class: domain.ErrorStatus, Detail: "503 Service Unavailable", RemoteIP: "192.0.2.1",
		Duration: 90 * time.Millisecond, Excerpt: "<html><body><h1>503 Service Unavailable</h1>No server is available to handle this request.</body></html>",
	}.Digested(monthSalt)
	timedOut = domain.Outcome{
		Kind: domain.OutcomeFailed, Class: domain.ErrorTimeout, Detail: "no answer within 5 s", RemoteIP: "192.0.2.1", Duration: hangFor,
	}
	refused = domain.Outcome{
		Kind: domain.OutcomeFailed, Class: domain.ErrorConnect, Detail: "dial tcp 192.0.2.1:443: connect: connection refused", Duration: time.Millisecond,
	}
)

// told is an entry of a story as the statement that writes it gets it. Times
// are microseconds since the routing, of a delivery that is neither fast nor
// slow.
type told struct {
	Story   int    `json:"story"`
	Version int    `json:"version"`
	Type    string `json:"type"`
	After   int64  `json:"after"`
	// Needs is the time up to which a month must last to have this entry: no
	// attempt is open where it ends.
	Needs int64 `json:"needs"`
	// Head and Tail are the data. Between them there is a number of
	// microseconds, or a moment, at HoleAt; nothing where Hole is empty.
	Head   string `json:"head"`
	Tail   string `json:"tail"`
	Hole   string `json:"hole"`
	HoleAt int64  `json:"hole_at"`
	// Excerpt is of the response, whose digest is in the data.
	Excerpt string `json:"excerpt"`
}

const (
	holeDuration = "duration"
	holeMoment   = "moment"
)

// teller writes a story's entries down.
type teller struct {
	story    int
	now      time.Duration
	attempt  int
	previous domain.OutcomeKind
	entries  []told
}

// tellStories gives the entries of all stories.
func tellStories() []told {
	var all []told
	for i, s := range stories {
		t := &teller{story: i}
		t.note(domain.Scheduled{Deadline: hole, WebhookVersion: webhookVersion}, holeMoment, domain.Deadline(EventName))
		s.tell(t)
		all = append(all, t.entries...)
	}
	return all
}

// attemptsPerDelivery is how many of the entries, on average, are attempts.
func attemptsPerDelivery(entries []told) float64 {
	attempts := 0
	for _, e := range entries {
		if e.Type == domain.TypeAttemptStarted {
			attempts += shares()[e.Story]
		}
	}
	return float64(attempts) / allShares
}

// shares of the stories.
func shares() []int {
	list := make([]int, len(stories))
	list[0] = allShares
	for i, s := range stories[1:] {
		list[i+1] = s.share
		list[0] -= s.share
	}
	return list
}

// webhookVersion is that of all webhooks: none was changed since it was
// registered.
const webhookVersion = 1

// hole is a moment that no entry has, and holeTook a duration: what stands for
// them in the JSON is where the true one goes.
var hole = time.Date(1999, time.December, 31, 23, 59, 59, 0, time.UTC)

const holeTook = 987_654_321 * time.Microsecond

// note writes one entry down.
func (t *teller) note(event domain.DeliveryEvent, kind string, holeAt time.Duration) {
	entry := domain.EncodeDelivery(event)
	e := told{
		Story: t.story, Version: len(t.entries) + 1, Type: entry.Type, After: t.now.Microseconds(), Needs: t.now.Microseconds(),
		Head: string(entry.Data), Hole: kind, HoleAt: holeAt.Microseconds(),
	}
	switch kind {
	case holeDuration:
		e.Head, e.Tail, _ = strings.Cut(e.Head, strconv.FormatInt(holeTook.Microseconds(), 10))
	case holeMoment:
		e.Head, e.Tail, _ = strings.Cut(e.Head, hole.Format(time.RFC3339Nano))
	}
	e.Excerpt = entry.Excerpt
	t.entries = append(t.entries, e)
}

func (t *teller) start(took time.Duration) {
	const toStart = 2 * time.Millisecond // from the recording before
	t.now += toStart
	t.attempt++
	t.note(domain.AttemptStarted{Attempt: t.attempt, WebhookVersion: webhookVersion, PreviousOutcome: t.previous, Timeout: hangFor}, "", 0)
	t.now += took
	t.entries[len(t.entries)-1].Needs = t.now.Microseconds()
}

func (t *teller) delivered() {
	const took = 40 * time.Millisecond
	t.start(took)
	t.note(domain.AttemptSucceeded{Attempt: t.attempt, Outcome: domain.Outcome{
		Kind: domain.OutcomeSucceeded, StatusCode: 204, Duration: holeTook, RemoteIP: "192.0.2.1",
	}}, holeDuration, took)
}

// failed are n attempts with an outcome, each with its wait behind it.
func (t *teller) failed(n int, outcome domain.Outcome) {
	for range n {
		t.start(outcome.Duration)
		wait, again := domain.DefaultRetryPolicy.Next(t.attempt, 0, 0.5)
		if again {
			t.note(domain.AttemptFailed{Attempt: t.attempt, Outcome: outcome, RetryAt: hole}, holeMoment, t.now+wait)
		} else {
			t.note(domain.AttemptFailed{Attempt: t.attempt, Outcome: outcome}, "", 0)
		}
		t.now += wait
		t.previous = domain.OutcomeFailed
	}
}

// lost is an attempt whose relay died.
func (t *teller) lost() {
	const toTakeOver = 8 * time.Second
	t.start(toTakeOver)
	t.note(domain.AttemptUnknown{Attempt: t.attempt, Reason: "the relay was lost", RetryAt: hole}, holeMoment, t.now)
	t.previous = domain.OutcomeUnknown
}

func (t *teller) held(reason domain.HoldReason, wait time.Duration, release domain.ReleaseReason) {
	if reason == domain.HoldOrder {
		t.note(domain.Held{Reason: reason, Until: hole}, holeMoment, t.now+domain.DefaultOrderHold)
	} else {
		t.note(domain.Held{Reason: reason}, "", 0)
	}
	t.now += wait
	t.note(domain.Released{Reason: release}, "", 0)
}

func (t *teller) dead() { t.note(domain.Dead{Reason: domain.DeadAttempts}, "", 0) }

// cancelled: the webhook was disabled while it waited.
func (t *teller) cancelled() {
	t.now -= time.Minute
	t.note(domain.Cancelled{Reason: domain.CancelledDisabled}, "", 0)
}

// expired: its webhook was paused until its deadline.
func (t *teller) expired() {
	t.note(domain.Held{Reason: domain.HoldPaused}, "", 0)
	t.now = domain.Deadline(EventName)
	t.note(domain.Expired{Reason: domain.ExpiredDeadline}, "", 0)
}

// decision is what routing makes of an event.
type decision struct {
	Kind    int    `json:"kind"`
	Routing string `json:"routing"`
	Head    string `json:"head"` // of the data, up to the conversation's number
	Tail    string `json:"tail"`
}

// decisionShares are of 100,000 events. The first has what the others leave:
// it is routed, to one webhook.
var decisionShares = []int{allShares - 2850, 2000, 500, 300, 50}

// tellDecisions gives the decisions, in the order of decisionShares.
func tellDecisions() []decision {
	const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	const conversation = 987_654_321 // where the true one goes
	routed := domain.Routed{EventName: EventName, OrderingKey: "conversation:" + strconv.Itoa(conversation), ConfigVersion: webhookVersion, BodyBytes: bodyBytes}
	var list []decision
	for _, r := range []domain.Routing{
		{Kind: domain.RoutingRouted, Targets: make([]domain.Target, 1)},
		{Kind: domain.RoutingNoSubscriber},
		{Kind: domain.RoutingSkipped, Reason: string(domain.SkipDisabled)},
		{Kind: domain.RoutingDuplicate},
		{Kind: domain.RoutingQuarantined, Reason: string(domain.QuarantineEventName)},
	} {
		one := routed
		one.Routing = r
		if r.Kind == domain.RoutingRouted {
			one.Digest = digest
		}
		if r.Kind == domain.RoutingDuplicate {
			one.DuplicateOf = 1
		}
		d := decision{Kind: len(list), Routing: string(r.Kind)}
		d.Head, d.Tail, _ = strings.Cut(string(domain.EncodeRouted(one)), strconv.Itoa(conversation))
		list = append(list, d)
	}
	return list
}

// bounds are where the shares begin, between 0 and 1.
func boundsOf(shares []int) []float64 {
	list := make([]float64, len(shares))
	sum := 0
	for i, share := range shares {
		list[i] = float64(sum) / allShares
		sum += share
	}
	return list
}

// asJSON is for an argument of a statement: numbers and texts, which cannot
// fail.
func asJSON(v any) string {
	text, _ := json.Marshal(v)
	return string(text)
}
