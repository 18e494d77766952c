package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// results are the results of an import, by account and URL.
func (c *cli) imported(args ...string) map[string]map[string]any {
	c.t.Helper()
	found := map[string]map[string]any{}
	for _, object := range c.objects(append([]string{"webhook", "import", "--format", "json"}, args...)...) {
		found[fmt.Sprintf("%v %v", object["account_id"], object["url"])] = object
	}
	return found
}

func TestWebhooksMoveFromOneDatabaseToAnother(t *testing.T) {
	t.Parallel()
	from, to := newCLI(t, pgtest.New(t).DSN), newCLI(t, pgtest.New(t).DSN)
	const password = "p:a/ss@word"
	from.ok("webhook", "add", "--account", "1", "--url", "https://user:p%3Aa%2Fss%40word@example.com/hook?a=1&b=2", "--name", "CRM <1>", "--secret", "opaque-chatwoot-secret",
		"--event", "message_created", "--inbox", "12", "--timeout", "2s", "--max-concurrency", "4", "--order-hold", "forever", "--deadline", "2h", "--retries", "1s,1m", "--rate-limit", "0.5", "--header", "X-Api-Key: open, sesame", "--header", "x-team: crm")
	from.ok("webhook", "rotate-secret", "1", "--secret", "a-newer-secret", "--overlap", "1h")
	from.ok("webhook", "pause", "1")
	from.ok("webhook", "add", "--account", "2", "--url", "https://example.com/hook", "--retries", "none")
	from.ok("webhook", "add", "--account", "2", "--url", "https://example.com/gone")
	from.ok("webhook", "remove", "3", "--yes")

	shown := from.ok("webhook", "export")
	if strings.Contains(shown, "secret\":") || strings.Contains(shown, "user") || strings.Contains(shown, "sesame") || !strings.Contains(shown, `"headers":{"X-Api-Key":null,"x-team":null}`) || !strings.Contains(shown, `"has_credential":true`) || strings.Count(shown, "\n") != 2 {
		t.Errorf("without secrets the export is %s", shown)
	}
	all := from.ok("webhook", "export", "--with-secrets")
	file := filepath.Join(t.TempDir(), "webhooks.jsonl")
	if out := from.ok("webhook", "export", "--with-secrets", "--output", file); out != "" {
		t.Errorf("an export to a file writes %s", out)
	}
	written, err := os.ReadFile(file)
	if err != nil || string(written) != all {
		t.Errorf("the file has %s, error %v; want %s", written, err, all)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode is %v, error %v", info.Mode(), err)
	}
	from.fails(exitFailed, []string{"is there already"}, "webhook", "export", "--output", file)
	from.width = 80
	if r := from.run("webhook", "export", "--with-secrets"); !strings.Contains(r.err, "--output") {
		t.Errorf("on a terminal the export says %q", r.err)
	}

	if revealed := from.objects("audit", "changes", "--change", "secret_revealed", "--format", "json"); len(revealed) != 6 {
		t.Errorf("three exports of two webhooks with their secrets left %d reveals on record", len(revealed))
	}

	dry := to.imported(file, "--dry-run")
	if r := dry["1 https://example.com/hook?a=1&b=2"]; len(dry) != 2 || r["result"] != "created" || r["id"] != nil || r["state"] != "paused" {
		t.Errorf("the dry run gives %v", dry)
	}
	if out := to.ok("webhook", "list"); out != "Nothing found.\n" {
		t.Errorf("a dry run left %s", out)
	}
	if out := to.ok("webhook", "import", file); !strings.Contains(out, "2 created, 0 updated, 0 unchanged, 0 refused") || strings.Contains(out, password) {
		t.Errorf("the import says %s", out)
	}
	if again := to.ok("webhook", "export", "--with-secrets"); again != all {
		t.Errorf("exported after the import:\n%s\nwant\n%s", again, all)
	}
	before := to.objects("webhook", "list", "--format", "json")
	for _, source := range []string{all, shown} { // what is left out is kept
		to.in = source
		for key, r := range to.imported("-") {
			if r["result"] != "unchanged" || fmt.Sprint(r["changed"]) != "[]" {
				t.Errorf("imported again %s is %v", key, r)
			}
		}
	}
	if after := to.objects("webhook", "list", "--format", "json"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("importing the same again made %v of %v", after, before)
	}

	to.in = strings.ReplaceAll(strings.ReplaceAll(all, "a-newer-secret", "the-newest-secret"), `"timeout":"5s"`, `"timeout":"9s"`)
	changed := to.imported("-")
	if r := changed["1 https://example.com/hook?a=1&b=2"]; r["result"] != "updated" || fmt.Sprint(r["changed"]) != "[secret]" {
		t.Errorf("another secret gives %v", r)
	}
	id := fmt.Sprint(changed["1 https://example.com/hook?a=1&b=2"]["id"]) // not 1: the dry run took some
	if shown := to.object("webhook", "show", id, "--reveal-secret"); fmt.Sprint(shown["headers"]) != "map[X-Api-Key:open, sesame x-team:crm]" {
		t.Errorf("the headers came as %v", shown["headers"])
	}
	if r := changed["2 https://example.com/hook"]; r["result"] != "updated" || fmt.Sprint(r["changed"]) != "[timeout]" {
		t.Errorf("another timeout gives %v", r)
	}
	if got := to.ok("webhook", "export", "--with-secrets"); got != to.in {
		t.Errorf("exported after the update:\n%s\nwant\n%s", got, to.in)
	}

	// What is said of headers is said of all of them.
	to.in = strings.NewReplacer(`"X-Api-Key":"open, sesame","x-team":"crm"`, `"X-Api-Key":null,"X-New":"new"`, `"retries":["1s","1m0s"]`, `"retries":null`, `"deadline":"2h0m0s"`, `"deadline":"3h0m0s"`).Replace(to.in)
	if r := to.imported("-")["1 https://example.com/hook?a=1&b=2"]; r["result"] != "updated" || fmt.Sprint(r["changed"]) != "[deadline retries headers]" {
		t.Errorf("other headers, deadline and retries give %v", r)
	}
	if shown := to.object("webhook", "show", id, "--reveal-secret"); fmt.Sprintf("%v %v %v", shown["headers"], shown["retries"], shown["deadline"]) != "map[X-Api-Key:open, sesame X-New:new] <nil> 3h0m0s" {
		t.Errorf("the webhook is %v", shown)
	}
}

func TestImportWithFewWords(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	c := newCLI(t, db.DSN)
	c.in = "\ufeff\n" + `{"account_id": 1, "url": "https://example.com/a", "state": "enabled"}` + "\n\n" + `{"account_id": 2, "url": "https://example.com/b", "name": null}`
	r := c.run("webhook", "import", "-", "--state", "disabled")
	if r.code != exitDone || !strings.Contains(r.err, "line 2: it came without a secret; a new one was drawn, which its receiver needs: outrider webhook show 1 --reveal-secret") {
		t.Errorf("the import says %+v", r)
	}
	// No event in between found them enabled.
	if n := query[int](t, db.SQL, `SELECT count(DISTINCT xid) FROM relay.webhooks WHERE state = 'disabled' AND version = 2`); n != 1 {
		t.Errorf("%d transactions made the disabled webhooks, want 1", n)
	}
	c.ok("webhook", "enable", "1")
	c.ok("webhook", "update", "1", "--timeout", "9s")
	for key, r := range c.imported("-", "--state", "disabled") {
		if r["result"] != "unchanged" {
			t.Errorf("the same import again gives %s %v", key, r)
		}
	}
	if shown := c.object("webhook", "show", "1"); shown["state"] != "enabled" || shown["timeout"] != "9s" {
		t.Errorf("the same import again left %v", shown)
	}
	if got := query[string](t, db.SQL, `SELECT string_agg(change, ' ' ORDER BY webhook_version) FROM audit.webhook_changes WHERE account_id = 1`); got != "registered disabled enabled updated" {
		t.Errorf("the history of account 1 is %s", got)
	}
}

func TestImportNamesAllThatIsWrong(t *testing.T) {
	t.Parallel()
	c := newCLI(t, pgtest.New(t).DSN)
	good := `{"account_id": 1, "url": "https://example.com/a"}`
	c.in = strings.Join([]string{
		good, // line 1
		`{"account_id": 0, "url": "ftp://example.com", "subscriptions": ["Message Created"], "timeout": "1h", "secret": "short", "evnts": []}`,
		`not json`,
		`[{"account_id": 1}]`,
		`{"account_id": 1, "url": "https://user:hunter2@example.com/a"}`,
		`{"url": "http://10.0.0.1/", "max_concurrency": "many", "state": "deleted", "inbox_id": 0, "order_hold": 3, "rate_limit": "fast", "has_credential": "yes", "deadline": 3, "retries": ["soon"], "headers": ["X-Key: hunter2"]}`,
		`{"account_id": 1, "url": "https://example.com/b", "secret": "{\"p\":\"n7J0/ol+a7DRMeaE\",\"h\":{\"iv\":\"DXZMDWUKfp3bg/Yu\",\"at\":\"X1/YjMHbHD4talgF9dt61A==\"}}"}`,
		`{"account_id": 1, "url": "https://example.com/c", "secret": {"p":"n7J0/ol+a7DRMeaE","h":{"iv":"DXZMDWUKfp3bg/Yu"}}}`,
		`{"account_id": 1, "url": "https://example.com/d", "previous_secret": "hunter2hunter2"}`,
		`{"account_id": 1, "url": "https://example.com/e", "has_credential": true}`,
		`{"account_id": 1, "url": "https://example.com/f", "headers": {"Host": "hunter2"}}`,
		`{"account_id": 1, "url": "https://example.com/g", "headers": {"X-Key": ""}, "retries": "none"}`,
	}, "\n")
	c.fails(exitFailed, []string{
		"line 2: account_id: is not a number of 1 or more", "line 2: url: must begin with http", `line 2: subscriptions: "Message Created" is not an event name`,
		"line 2: timeout: 1h0m0s is not within 1s to 30s", "line 2: secret: the secret has 5 characters", "line 2: evnts: there is no such member; there are: account_id, ",
		"line 3: is not one JSON object", "line 4: is a list", "line 5: url: is the same as in line 1",
		"line 6: account_id: is missing", "line 6: url: the address 10.0.0.1 is refused", "line 6: max_concurrency: is not a number", "line 6: state: ",
		"line 6: inbox_id: is not null", `line 6: order_hold: is not text like "30s"`, "line 6: rate_limit: is not null (no limit), or a number", "line 6: has_credential: is not true or false",
		`line 6: deadline: is not text like "30s"`, `line 6: retries: "soon" is not a duration`, "line 6: headers: is not an object of names and values",
		"line 11: headers: Host is sent by Outrider", "line 12: headers: one of them is empty", "line 12: retries: is not null",
		"line 7: secret: the secret is encrypted", "rails runner", "line 8: secret: the secret is encrypted", "line 9: previous_secret: wants secret",
		"nothing was imported; 2 webhooks can be: --skip-refused",
	}, "webhook", "import", "-")
	if r := c.run("webhook", "import", "-"); strings.Contains(r.err, "hunter2") || strings.Contains(r.err, "n7J0") {
		t.Errorf("a problem quotes a secret: %s", r.err)
	}
	// What only the database knows is told with nothing written, too.
	c.in = good + "\n" + `{"account_id": 1, "url": "https://example.com/e", "has_credential": true, "headers": {"X-Key": null}}`
	c.fails(exitFailed, []string{"line 2: headers: the value of X-Key was left out"}, "webhook", "import", "-")
	c.in = good + "\n" + `{"account_id": 1, "url": "https://example.com/e", "has_credential": true}`
	c.fails(exitFailed, []string{"line 2: url: its user and password were left out when it was exported"}, "webhook", "import", "-")
	if out := c.ok("webhook", "list"); out != "Nothing found.\n" {
		t.Errorf("a refused import left %s", out)
	}
	r := c.run("webhook", "import", "-", "--skip-refused")
	if r.code != exitFailed || !strings.Contains(r.out, "1 created, 0 updated, 0 unchanged, 1 refused") || !strings.Contains(r.err, "line 2 is refused: url: its user") {
		t.Errorf("without the refused the import says %+v", r)
	}
	c.fails(exitUsage, []string{"the FILE of webhooks", `--state: "deleted" is none of`}, "webhook", "import", "--state", "deleted")
	c.fails(exitFailed, []string{"no such file"}, "webhook", "import", filepath.Join(t.TempDir(), "none"))
}

// What export writes is what import reads: member for member.
func TestExportedMembersAreImported(t *testing.T) {
	t.Parallel()
	until := time.Now()
	object, err := json.Marshal(exported{HasCredential: true, Secret: "s", PreviousSecret: "p", PreviousSecretUntil: &until}) //nolint:gosec // no secrets
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(object, &members); err != nil {
		t.Fatal(err)
	}
	for name := range members {
		if importFields[name] == nil {
			t.Errorf("%s is exported and not imported", name)
		}
	}
	for name := range importFields {
		if _, ok := members[name]; !ok {
			t.Errorf("%s is imported and not exported", name)
		}
	}
}
