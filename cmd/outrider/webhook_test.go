package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/domain"
)

const shownMembers = "account_id breaker breaker_opened_at deadline has_credential headers id inbox_id max_concurrency name order_hold previous_secret_until problem rate_limit retries state subscriptions timeout url version"

func TestWebhookLife(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)

	added := c.object("webhook", "add", "--account", "1", "--url", "https://user:hunter2@example.com/hook?a=1&b=2", "--event", "message_created,contact_created",
		"--event", "message_updated", "--name", "CRM", "--inbox", "3", "--timeout", "2s", "--max-concurrency", "4", "--order-hold", "forever", "--deadline", "1d", "--retries", "1s, 5m,2d", "--rate-limit", "2.5")
	secret, _ := added["secret"].(string)
	if !strings.HasPrefix(secret, "whsec_") || members(added) != "account_id breaker breaker_opened_at deadline has_credential headers id inbox_id max_concurrency name order_hold previous_secret previous_secret_until problem rate_limit retries secret state subscriptions timeout url version" {
		t.Errorf("added is %v", added)
	}
	for name, want := range map[string]any{
		"id": 1.0, "account_id": 1.0, "version": 1.0, "state": "enabled", "name": "CRM", "url": "https://example.com/hook?a=1&b=2", "inbox_id": 3.0,
		"timeout": "2s", "max_concurrency": 4.0, "order_hold": "forever", "has_credential": true, "previous_secret_until": nil, "deadline": "24h0m0s",
		"rate_limit": 2.5, "breaker": "closed", "breaker_opened_at": nil,
	} {
		if added[name] != want {
			t.Errorf("%s is %v, want %v", name, added[name], want)
		}
	}
	if got := fmt.Sprint(added["subscriptions"]); got != "[message_created contact_created message_updated]" {
		t.Errorf("subscriptions are %s", got)
	}
	if got := fmt.Sprint(added["retries"]); got != "[1s 5m0s 48h0m0s]" {
		t.Errorf("retries are %s", got)
	}
	// Chatwoot's form of a secret, a second account, defaults.
	other := c.object("webhook", "add", "--account", "2", "--url", "https://example.com/hook", "--secret", "opaque-chatwoot-secret")
	if other["secret"] != "opaque-chatwoot-secret" || other["timeout"] != "5s" || other["order_hold"] != "30s" || other["max_concurrency"] != 16.0 || other["deadline"] != "168h0m0s" || other["retries"] != nil || fmt.Sprint(other["headers"]) != "map[]" {
		t.Errorf("the other is %v", other)
	}
	if list, _ := other["subscriptions"].([]any); len(list) != len(domain.DefaultSubscriptions) {
		t.Errorf("default subscriptions are %v", list)
	}

	for given, want := range map[string]string{"none": "[]", "90s": "[1m30s]", "default": "<nil>", "1s,5m,2d": "[1s 5m0s 48h0m0s]"} {
		if got := c.object("webhook", "update", "2", "--retries", given); fmt.Sprint(got["retries"]) != want {
			t.Errorf("--retries %s gives %v, want %s", given, got["retries"], want)
		}
	}
	if shown := c.ok("webhook", "show", "1"); !strings.Contains(shown, "1s, 5m0s, 48h0m0s") || !strings.Contains(shown, "24h0m0s") {
		t.Errorf("the webhook is shown as %s", shown)
	}

	// Only what is given changes.
	updated := c.object("webhook", "update", "1", "--order-hold", "0", "--any-inbox")
	if updated["order_hold"] != "0s" || updated["inbox_id"] != nil || updated["timeout"] != "2s" || updated["name"] != "CRM" || updated["deadline"] != "24h0m0s" || fmt.Sprint(updated["retries"]) != "[1s 5m0s 48h0m0s]" || fmt.Sprint(updated["has_credential"]) != "true" || updated["version"] != 2.0 {
		t.Errorf("updated is %v", updated)
	}
	if out := c.ok("webhook", "update", "1", "--name", "CRM"); !strings.Contains(out, "Nothing changes") {
		t.Errorf("an update to the same says %s", out)
	}
	for _, step := range [][2]string{{"pause", "paused"}, {"disable", "disabled"}, {"enable", "enabled"}} {
		if out := c.ok("webhook", step[0], "1"); out != "Webhook 1 is "+step[1]+".\n" {
			t.Errorf("%s says %s", step[0], out)
		}
		if out := c.ok("webhook", step[0], "1"); !strings.Contains(out, "Nothing changes") {
			t.Errorf("%s again says %s", step[0], out)
		}
	}

	rotated := c.object("webhook", "rotate-secret", "1", "--overlap", "1h")
	until, err := time.Parse(time.RFC3339Nano, fmt.Sprint(rotated["previous_secret_until"]))
	if err != nil || until.Before(time.Now().Add(59*time.Minute)) || rotated["secret"] == secret {
		t.Errorf("rotated is %v, error %v", rotated, err)
	}
	if shown := c.object("webhook", "show", "1", "--reveal-secret"); shown["secret"] != rotated["secret"] || shown["previous_secret"] != secret {
		t.Errorf("revealed is %v", shown)
	}
	if out := c.ok("webhook", "rotate-secret", "1", "--secret", "another-secret", "--overlap", "0"); !strings.Contains(out, "another-secret") || !strings.Contains(out, "signs no more") {
		t.Errorf("rotation says %s", out)
	}
	if shown := c.object("webhook", "show", "1", "--reveal-secret"); shown["previous_secret"] != nil {
		t.Errorf("without overlap the previous secret is %v", shown["previous_secret"])
	}

	c.fails(exitUsage, []string{"give --yes"}, "webhook", "remove", "1")
	c.asks, c.in = true, "n\n"
	if r := c.run("webhook", "remove", "1"); r.code != exitFailed || !strings.Contains(r.err, "Remove webhook 1 of account 1") {
		t.Errorf("a removal that is not confirmed: %+v", r)
	}
	c.in = "y\n"
	c.ok("webhook", "remove", "1")
	c.ok("webhook", "remove", "2", "--yes")
	if shown := c.object("webhook", "show", "1", "--reveal-secret"); shown["state"] != "deleted" || shown["secret"] != nil {
		t.Errorf("a removed webhook is %v", shown)
	}
	if revealed := c.objects("audit", "changes", "--webhook", "1", "--change", "secret_revealed", "--format", "json"); len(revealed) != 2 || fmt.Sprint(revealed[0]["before"]) != fmt.Sprint(revealed[0]["after"]) {
		t.Errorf("of two reveals there are %d on record: %v", len(revealed), revealed)
	}
	c.fails(exitFailed, []string{"there is no webhook 1"}, "webhook", "pause", "1")
	c.fails(exitFailed, []string{"there is no webhook 99", "webhook list"}, "webhook", "show", "99")
	if out := c.ok("webhook", "list"); out != "Nothing found.\n" {
		t.Errorf("an empty list says %s", out)
	}
	if out := c.ok("webhook", "list", "--format", "json"); out != "" {
		t.Errorf("an empty list in JSON is %q", out)
	}
}

func TestWebhookSecretsStayHidden(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	const secret, password = "a-very-secret-text", "hunter2hunter2"
	c.ok("webhook", "add", "--account", "1", "--url", "https://user:"+password+"@example.com/hook?token=in-the-query", "--secret", secret)
	c.ok("webhook", "rotate-secret", "1", "--secret", secret+"-new")
	s := insert(t, db.SQL, "message_created", tracedID, "")
	s.routed(domain.Routed{Routing: domain.Routing{Kind: domain.RoutingRouted, Targets: []domain.Target{{WebhookID: 1, Version: 2}}}, EventName: "message_created"})
	s.delivered(1, 0, 7,
		domain.Scheduled{At: after(0), Deadline: after(time.Hour), WebhookVersion: 2},
		domain.AttemptStarted{At: after(0), Attempt: 1, WebhookVersion: 2, Timeout: time.Second})
	for _, args := range [][]string{
		{"webhook", "list"}, {"webhook", "show", "1"}, {"webhook", "update", "1", "--name", "x"}, {"webhook", "pause", "1"}, {"webhook", "enable", "1"},
		{"audit", "events"}, {"audit", "deliveries"}, {"audit", "attempts"}, {"audit", "trace", tracedID.String()},
	} {
		formats := []string{"table", "json", "csv"}
		switch args[1] {
		case "pause", "enable":
			formats = nil
		case "show", "update", "trace":
			formats = formats[:2]
		}
		outputs := []string{}
		if formats == nil {
			outputs = append(outputs, c.ok(args...))
		}
		for _, format := range formats {
			outputs = append(outputs, c.ok(append(args, "--format", format)...))
		}
		for _, out := range outputs {
			hidden := []string{secret, password, "secret of the chat"}
			if args[0] == "audit" {
				hidden = append(hidden, "in-the-query")
			}
			for _, text := range hidden {
				if strings.Contains(out, text) {
					t.Errorf("outrider %s shows %q:\n%s", strings.Join(args, " "), text, out)
				}
			}
		}
	}
	rows, err := db.SQL.QueryContext(t.Context(), `SELECT w::text FROM audit.webhook_changes w`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var row string
		if err := rows.Scan(&row); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{secret, password, "in-the-query"} {
			if strings.Contains(row, text) {
				t.Errorf("audit.webhook_changes shows %q: %s", text, row)
			}
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

func TestWebhookList(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	for i := range 3 {
		c.ok("webhook", "add", "--account", fmt.Sprint(1+i%2), "--url", fmt.Sprintf("https://example.com/%d/%s", i, strings.Repeat("long/", 20)), "--name", `a "name", with marks`)
	}
	listed := c.objects("webhook", "list", "--account", "1", "--format", "json")
	if len(listed) != 2 || members(listed[0]) != shownMembers {
		t.Errorf("listed are %v", listed)
	}
	records, err := csv.NewReader(strings.NewReader(c.ok("webhook", "list", "--format", "csv"))).ReadAll()
	if err != nil || len(records) != 4 || len(records[0]) != len(webhookColumns) || records[1][5] != `a "name", with marks` {
		t.Errorf("the CSV is %v, error %v", records, err)
	}
	c.width = 100
	for line := range strings.Lines(c.ok("webhook", "list")) {
		if n := len([]rune(strings.NewReplacer("\x1b[2m", "", "\x1b[32m", "", "\x1b[0m", "").Replace(strings.TrimSuffix(line, "\n")))); n > c.width {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func TestWebhookEnableSaysWhatWasMissed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/hook")
	c.ok("webhook", "disable", "1", "--reason", "maintenance")
	s := insert(t, db.SQL, "message_created", tracedID, "")
	s.routed(domain.Routed{
		Routing:   domain.Routing{Kind: domain.RoutingSkipped, Skips: []domain.Skip{{WebhookID: 1, Reason: domain.SkipDisabled}}},
		EventName: "message_created", ConfigVersion: 2,
	})
	mustExec(t, db.SQL, `INSERT INTO relay.batches (no, prev, consumed, cursor, floor, window_floor, high, low, seq_min, seq_max, commit, relay_id, at)
VALUES (1, 0, '3:3:', 0, 0, 0, $1, 0, $1, $1, 1, 7, $2)`, s.seq, after(2*time.Millisecond))
	out := c.ok("webhook", "enable", "1")
	_, command, found := strings.Cut(out, "\n\n  outrider ")
	if !found || !strings.Contains(out, "Webhook 1 missed 1 event while it was disabled") {
		t.Fatalf("enable says %s", out)
	}
	if want := "replay run --webhook 1 --since 2026-07-01T12:00:00.002Z --until 2026-07-01T12:00:00.002001Z\n"; command != want {
		t.Errorf("the command is %s, want %s", command, want)
	}
	// The command works as it is printed.
	if out := c.ok(strings.Fields(command)...); !strings.Contains(out, "Replay 1 is requested") {
		t.Errorf("the command says %s", out)
	}
}

func TestWebhookStatesOfManyAtOnce(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	for account := range 2 {
		for _, path := range []string{"a", "b"} {
			c.ok("webhook", "add", "--account", fmt.Sprint(account+1), "--url", "https://example.com/"+path)
		}
	}
	c.ok("webhook", "disable", "2", "--reason", "its owner's wish")
	said := func(want string, args ...string) string {
		t.Helper()
		out := c.ok(append([]string{"webhook"}, args...)...)
		if !strings.Contains(out, want) {
			t.Errorf("%v says %s, want %q", args, out, want)
		}
		return out
	}
	if out := said("4 webhooks: 3 disabled now, 1 disabled already.", "disable", "--all", "--reason", "move"); !strings.Contains(out, "https://example.com/a") {
		t.Errorf("the webhooks are not listed: %s", out)
	}
	said("4 webhooks: 0 disabled now, 4 disabled already.", "disable", "--all", "--reason", "move")
	s := insert(t, db.SQL, "message_created", tracedID, "")
	s.routed(domain.Routed{
		Routing:   domain.Routing{Kind: domain.RoutingSkipped, Skips: []domain.Skip{{WebhookID: 1, Reason: domain.SkipDisabled}, {WebhookID: 2, Reason: domain.SkipDisabled}}},
		EventName: "message_created", ConfigVersion: 4,
	})
	if out := said("1 webhook: 1 enabled now, 0 enabled already.", "enable", "--account", "1", "--only-disabled-for", "move", "--missed-since", "2026-07-01T00:00:00Z"); !strings.Contains(out, "Webhook 1 missed 1 event while it was disabled from 2026-07-01T00:00:00Z on. To send them:\n\n  outrider replay run --webhook 1 --since 2026") {
		t.Errorf("enable says %s", out)
	}
	c.ok("webhook", "disable", "1")
	if out := said("2 webhooks: 2 enabled now", "enable", "--account", "1", "--missed-since", "2026-07-02T00:00:00Z"); strings.Contains(out, "missed") {
		t.Errorf("enable counts what was routed before: %s", out)
	}
	said("2 webhooks: 2 paused now", "pause", "--account", "2")
	c.fails(exitFailed, []string{`there is no webhook that is disabled for the reason "other"`, "webhook list"}, "webhook", "enable", "--all", "--only-disabled-for", "other")
	c.fails(exitFailed, []string{"there is no webhook of account 7"}, "webhook", "pause", "--account", "7")
	c.fails(exitUsage, []string{"--account and --all are both given"}, "webhook", "enable", "--all", "--account", "1")
	c.fails(exitUsage, []string{`unexpected argument "1"`}, "webhook", "disable", "1", "--all")
	c.fails(exitUsage, []string{"--only-disabled-for is for --account and --all"}, "webhook", "enable", "1", "--only-disabled-for", "x")
	if got := query[string](t, db.SQL, `SELECT string_agg(state, ' ' ORDER BY id) FROM relay.webhooks`); got != "enabled enabled paused paused" {
		t.Errorf("the webhooks are %s", got)
	}
}

func TestWebhookUsage(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "")
	c.env["OUTRIDER_ALLOW_CIDRS"] = "10.0.0.0/8,nonsense"
	c.fails(exitUsage, []string{
		`--account: "x" is not a number`, "--timeout: 1m0s is not within 1s to 30s", "--max-concurrency: 999 is not within 1 to 256",
		`--order-hold: "soon" is neither`, "--rate-limit: 20000 is neither 0 (no limit) nor within 0.01 to 10000", `--event: "Message Created" is not an event name`, "--url: must begin with http", "--secret: the secret has 5 characters",
		"--deadline: 192h0m0s is not within 1s to 7d", `--retries: "soon" is not a duration; write it like 30s, 2h or 7d; or none, or default`,
		"--header: a value is not like 'NAME: VALUE'", `--format: "xml" is none of table, json`, "database_url is missing", `OUTRIDER_ALLOW_CIDRS: "nonsense" is not a network`, `unexpected argument "extra"`,
		"outrider webhook add --help",
	}, "webhook", "add", "extra", "--account", "x", "--url", "ftp://example.com", "--timeout", "60s", "--max-concurrency", "999", "--order-hold", "soon", "--rate-limit", "20000",
		"--event", "Message Created", "--secret", "short", "--format", "xml", "--deadline", "8d", "--retries", "5s,soon", "--header", "X-Key")
	c.env["OUTRIDER_ALLOW_CIDRS"] = ""
	c.env["OUTRIDER_DATABASE_URL"] = "postgres://nobody@127.0.0.1:1/none"
	tests := []struct {
		want []string
		args []string
	}{
		{[]string{"--account is missing", "--url is missing"}, []string{"webhook", "add"}},
		{[]string{"--url: the address 10.0.0.1 is refused", "OUTRIDER_ALLOW_CIDRS"}, []string{"webhook", "add", "--account", "1", "--url", "http://10.0.0.1/"}},
		{[]string{"the webhook's ID is missing"}, []string{"webhook", "show"}},
		{[]string{`the webhook's ID: "-1" is not a number`}, []string{"webhook", "pause", "--", "-1"}},
		{[]string{"there are 2 arguments"}, []string{"webhook", "enable", "1", "2"}},
		{[]string{"nothing to change is given"}, []string{"webhook", "update", "1"}},
		{[]string{"--inbox and --any-inbox", "--timeout: 31s is not within"}, []string{"webhook", "update", "1", "--inbox", "2", "--any-inbox", "--timeout", "31s"}},
		{[]string{"--header: Host is sent by Outrider or by HTTP itself", "--retries: 100ms is not within"}, []string{"webhook", "update", "1", "--header", "Host: x", "--retries", "100ms"}},
		{[]string{"--header: x-key is given twice"}, []string{"webhook", "update", "1", "--header", "X-Key: x", "--remove-header", "x-key"}},
		{[]string{"--header: Authorization is given, and a user and password in the URL"}, []string{"webhook", "add", "--account", "1", "--url", "https://a:b@example.com", "--header", "Authorization: x"}},
		{[]string{`--overlap: "-1h" is not a duration`}, []string{"webhook", "rotate-secret", "1", "--overlap", "-1h"}},
		{[]string{"unknown flag: --colour"}, []string{"webhook", "list", "--colour"}},
		{[]string{`unknown command "lst"`, "did you mean list"}, []string{"webhook", "lst"}},
		{[]string{`unknown command "webhooks"`, "did you mean webhook"}, []string{"webhooks"}},
	}
	for _, test := range tests {
		c.fails(exitUsage, test.want, test.args...)
	}
	if out := c.ok("webhook"); !strings.Contains(out, "rotate-secret") {
		t.Errorf("the help of webhook is %s", out)
	}
	for _, title := range []string{"Run:", "Configure:", "Look back, and send again:"} {
		if out := c.ok(); !strings.Contains(out, title) {
			t.Errorf("the help lacks %q", title)
		}
	}
}

func TestWebhookURLTaken(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.ok("webhook", "add", "--account", "1", "--url", "https://example.com/a")
	c.fails(exitFailed, []string{"account 1 has a webhook with this URL already: 1", "outrider webhook update 1"},
		"webhook", "add", "--account", "1", "--url", "https://example.com/a")
	// An address that is refused for the present settings is refused on update too.
	c.fails(exitUsage, []string{"--url: the address 127.0.0.1 is refused"}, "webhook", "update", "1", "--url", "http://127.0.0.1/")
	c.ok("webhook", "update", "1", "--url", "http://127.0.0.1/", "--allow-cidrs", "127.0.0.0/8")
}

// TestAWebhookThatCannotBeReadIsListed: with what is wrong, beside the others,
// and an export does not leave it out.
func TestAWebhookThatCannotBeReadIsListed(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	for n := range 3 {
		c.ok("webhook", "add", "--account", "1", "--url", fmt.Sprintf("https://example.com/%d", n))
	}
	mustExec(t, db.SQL, `UPDATE relay.webhooks SET settings = '{"timeout": "soon"}' WHERE id = 2`)
	const problem = `its settings cannot be read: time: invalid duration "soon"`

	r := c.run("webhook", "list", "--format", "json")
	var listed []map[string]any
	for line := range strings.Lines(r.out) {
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatal(err)
		}
		listed = append(listed, object)
	}
	if r.code != exitFailed || len(listed) != 3 || !strings.Contains(r.err, "outrider: webhook 2 of account 1: "+problem) || !strings.Contains(r.err, "outrider rebuild") {
		t.Fatalf("exit %d, %d webhooks, and it says %s", r.code, len(listed), r.err)
	}
	for i, want := range []map[string]any{
		{"id": 1.0, "problem": nil, "url": "https://example.com/0", "timeout": "5s"},
		{"id": 2.0, "account_id": 1.0, "state": "enabled", "problem": problem, "url": nil, "subscriptions": nil, "timeout": nil, "order_hold": nil},
		{"id": 3.0, "problem": nil, "url": "https://example.com/2", "timeout": "5s"},
	} {
		for name, value := range want {
			if listed[i][name] != value {
				t.Errorf("%s of webhook %d is %v, want %v", name, i+1, listed[i][name], value)
			}
		}
	}
	if r := c.run("webhook", "list"); r.code != exitFailed || !strings.Contains(r.out, problem) || !strings.Contains(r.out, "https://example.com/2") {
		t.Errorf("exit %d, and the table is\n%s", r.code, r.out)
	}
	c.fails(exitFailed, []string{"webhook 2 of account 1: " + problem}, "webhook", "export")
	c.ok("rebuild")
	if out := c.ok("webhook", "list"); strings.Contains(out, "PROBLEM") || !strings.Contains(out, "https://example.com/1") {
		t.Errorf("once mended the table is\n%s", out)
	}
}
