package httpapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// Each operation is asked so often.
const asked = 110

// requests makes requests to operations from what the document says of them:
// such as it allows, at the bounds of it, and such as break it.
type requests struct {
	d   *v1Document
	rng *rand.Rand
	// there are values that the database knows, by the name of a parameter or
	// member.
	there map[string][]any
}

func (q *requests) chance(percent int) bool { return q.rng.IntN(100) < percent }

func pick[T any](q *requests, from ...T) T { return from[q.rng.IntN(len(from))] }

// nasty are texts that somebody did not think of.
var nasty = []string{
	"", " ", "\x00", "'", "\"", "%", "%00", "../..", "a b", "é", "\u202e", "𝄞", "null", "true", "0", "-1", "1e400", "NaN", "9223372036854775808", strings.Repeat("x", 5000),
	"2026-07-01T12:00:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999-14:00", "00000000-0000-0000-0000-000000000000", "\xff", "\xed\xa0\x80", "; DROP TABLE relay.log",
}

// value gives a value for a schema. broken says that it may be another.
func (q *requests) value(name string, schema object, broken bool, depth int) any {
	if broken && q.chance(25) {
		return pick[any](q, nil, true, 0.0, -1.0, 1.5, 1e30, "text", pick(q, nasty...), []any{}, []any{nil}, object{}, object{"x": 1.0})
	}
	if ref, ok := schema["$ref"]; ok {
		return q.value(name, of[object](of[object](of[object](q.d.root["components"])["schemas"])[strings.TrimPrefix(of[string](ref), "#/components/schemas/")]), broken, depth)
	}
	if known := q.there[name]; len(known) > 0 && q.chance(60) {
		return pick(q, known...)
	}
	if enum := of[[]any](schema["enum"]); len(enum) > 0 {
		return pick(q, enum...)
	}
	if examples := of[[]any](schema["examples"]); len(examples) > 0 && q.chance(50) {
		return pick(q, examples...)
	}
	kinds := of[[]any](schema["type"])
	if one, ok := schema["type"].(string); ok {
		kinds = []any{one}
	}
	switch pick(q, kinds...) {
	case "null":
		return nil
	case "boolean":
		return q.chance(50)
	case "integer", "number":
		least, hasLeast := schema["minimum"].(float64)
		most, hasMost := schema["maximum"].(float64)
		var bounds []float64
		if hasLeast {
			bounds = append(bounds, least, least+1)
		}
		if hasMost {
			bounds = append(bounds, most, most-1)
		}
		if broken {
			bounds = append(bounds, least-1, most+1, 1<<53, 1<<62, -1<<62)
		}
		bounds = append(bounds, 1, 2, 3, 7)
		return pick(q, bounds...)
	case "string":
		switch format := schema["format"]; {
		case broken && q.chance(50):
			return pick(q, nasty...)
		case format == "uuid":
			return fmt.Sprintf("%08x-8a71-7d10-b3a5-5f0c8a1d2e4f", q.rng.Uint32())
		case format == "date-time":
			return time.Unix(q.rng.Int64N(4e9), q.rng.Int64N(1e9)).UTC().Format(time.RFC3339Nano)
		}
		return pick(q, "x", "message_created", "5s", "1h", "7d", "conversation:346", "https://example.com/"+fmt.Sprint(q.rng.IntN(1000)))
	case "array":
		list := []any{}
		for range pick(q, 0, 1, 1, 2, 5) {
			list = append(list, q.value(name, of[object](schema["items"]), broken, depth+1))
		}
		return list
	case "object":
		return q.object(schema, broken, depth)
	}
	return nil
}

func (q *requests) object(schema object, broken bool, depth int) object {
	members := object{}
	properties := of[object](schema["properties"])
	required := of[[]any](schema["required"])
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if slices.Contains(required, any(name)) && (!broken || q.chance(90)) || q.chance(30) {
			members[name] = q.value(name, of[object](properties[name]), broken, depth+1)
		}
	}
	if more := of[object](schema["additionalProperties"]); more != nil {
		for range pick(q, 0, 1, 2) {
			members[pick(q, "X-Api-Key", "X-B", "x")] = q.value("", more, broken, depth+1)
		}
	}
	if broken && q.chance(15) {
		members[pick(q, "x", "id", "URL", "\x00", "")] = pick[any](q, nil, 1.0, "x")
	}
	return members
}

// request gives a request to an operation.
func (q *requests) request(o *v1DocumentOperation) (path, body string, header []string) {
	broken := q.chance(50)
	path = o.path
	query := url.Values{}
	for _, parameter := range of[[]any](o.object["parameters"]) {
		p := of[object](parameter)
		name, schema := of[string](p["name"]), of[object](p["schema"])
		switch p["in"] {
		case "path":
			text := fmt.Sprint(q.value(name, schema, broken && q.chance(20), 0))
			if text == "" || text == "." || text == ".." || strings.Contains(text, "/") {
				text = "x"
			}
			if f, ok := q.value(name, schema, false, 0).(float64); ok && !broken {
				text = fmt.Sprint(int64(f))
			}
			path = strings.Replace(path, "{"+name+"}", url.PathEscape(text), 1)
		case "query":
			if q.chance(25) {
				v := q.value(name, schema, broken, 0)
				if f, ok := v.(float64); ok && f == float64(int64(f)) {
					v = int64(f)
				}
				query.Add(name, fmt.Sprint(v))
			}
		case "header":
			if of[bool](p["required"]) && !broken || q.chance(50) {
				header = append(header, name, pick(q, "*", `"1-1"`, `"1-2", "2-1"`, "W/\"x\"", "x", `"`, ",", "\"1-99999999999999999999\""))
			}
		}
	}
	if broken && q.chance(10) {
		query.Add(pick(q, "x", "limit", "cursor", "account_id"), pick(q, nasty...))
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
		if broken && q.chance(5) {
			path += pick(q, "&%zz", "&a;b", "&=", "&&", "#")
		}
	}
	content := of[object](of[object](o.object["requestBody"])["content"])
	if len(content) == 0 {
		return path, "", header
	}
	text, err := json.Marshal(q.value("", of[object](of[object](content["application/json"])["schema"]), broken, 0))
	if err != nil {
		text = []byte("{}")
	}
	body = string(text)
	if broken && q.chance(15) {
		body = pick(q, "", "{", body+"}", body+" ", strings.ToUpper(body), strings.Replace(body, ":", ":\"\\ud800\",", 1), "\xef\xbb\xbf"+body, strings.Repeat("[", 20_000), body[:len(body)/2])
	}
	if broken && q.chance(10) {
		header = append(header, "Content-Type", pick(q, "text/plain", "application/json; charset=latin1", "application/problem+json", ";", "application/json+x"))
	}
	return path, body, header
}

// TestV1AnswersWhatTheDocumentSays, whatever it is asked: never with 5xx, and
// with each answer as the document has it for the operation and the status.
func TestV1AnswersWhatTheDocumentSays(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	p := newPast(t, r)
	r.ok(http.StatusCreated, http.MethodPost, "/accounts/7/replays", fmt.Sprintf(`{"event_ids": [%q]}`, p.dead))
	r.exec(`INSERT INTO relay.relays (name, version, recorder) VALUES ('host', '1', 0)`)
	q := &requests{d: r.document, rng: rand.New(rand.NewPCG(2026, 11)), there: map[string][]any{ //nolint:gosec // the same each time
		"account_id": {7.0, 7.0, 7.0, 8.0, -1.0}, "webhook_id": {float64(p.hook), float64(p.other)}, "webhook": {float64(p.hook)}, "replay_id": {1.0, 2.0}, "replay": {1.0},
		"event_id": {p.delivered.String(), p.dead.String(), p.waiting.String()}, "event_ids": {p.delivered.String(), p.dead.String()},
		"delivery_id": {p.deliveryOf(1, p.hook, 7, p.delivered).String()}, "since": {p.start.Format(time.RFC3339)}, "limit": {1.0, 2.0, 200.0},
		"timeout": {"5s", "30s"}, "order_hold": {"30s", "forever", "0"}, "deadline": {"1h", "7d"}, "retries": {"5s", "1m"}, "overlap": {"1h"}, "subscriptions": {"message_created"},
		"events": {"message_created"}, "statuses": {"dead", "undelivered"}, "secret": {"opaque-secret"}, "rate_limit": {0.0, 0.5, 10000.0}, "ordering_key": {"conversation:346", ""},
		"cursor": {"ZXZlbnRzIDM", "ZGVsaXZlcmllcyAyIDEgMA", "YXR0ZW1wdHMgMiAxIDAgMQ", "Y2hhbmdlcyAxIDcgMQ", "d2ViaG9va3MgMQ", "aGVhbHRoIDE", "c3RhdHMgMTc2NDAwMDAwMCAx", "cmVwbGF5cyAy"},
	}}
	statuses := map[string]map[int]int{}
	for _, o := range r.document.operations {
		statuses[o.id] = map[int]int{}
		for range asked {
			path, body, header := q.request(o)
			switch tag := of[[]any](o.object["tags"])[0]; tag { // what was done before would be in the way
			case "Webhooks", "Webhook actions":
				r.exec(`UPDATE relay.webhooks SET state = $1`, pick(q, "enabled", "enabled", "paused", "disabled"))
			case "Replays":
				r.exec(`WITH gone AS (DELETE FROM relay.replay_streams) UPDATE relay.replays SET state = $1, scheduled = 0 WHERE replay_id = 1`, pick(q, "planned", "running", "paused"))
			}
			a := r.call(o.method, path, r.admin, body, header...)
			statuses[o.id][a.status]++
			if a.status >= 500 {
				t.Errorf("%s %s with %q %v: %d %s", o.method, path, body, header, a.status, a.text)
			}
			if t.Failed() {
				t.Fatalf("the request was %s %s %q %v, the log is\n%s", o.method, path, body, header, r.log)
			}
		}
	}
	for _, o := range r.document.operations {
		if counts := statuses[o.id]; counts[200]+counts[201]+counts[202]+counts[204] == 0 || counts[http.StatusUnprocessableEntity] == 0 {
			t.Errorf("%s answered %v: it was not asked well", o.id, counts)
		}
	}
	t.Logf("statuses: %v", statuses)
}
