package main

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// somebody is at the pages of account 1, with a relay at work and a receiver
// that refuses until it is mended.
type somebody struct {
	*browser
	db    *pgtest.DB
	site  string
	token string
	*catcher
}

func newSomebody(t *testing.T) *somebody {
	t.Helper()
	s := &somebody{db: pgtest.New(t)}
	s.catcher = newCatcher(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/broken" {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte("the database of the CRM is away"))
		}
	})
	s.token, _ = newCLI(t, s.db.DSN).object("token", "create", "--account", "1", "--role", "administrator", "--name", "Mira")["token"].(string)
	relay := startProcess(t, s.db.DSN, "serve", "--allow-unsafe")
	site := startWeb(t, asRole(t, s.db, "web", "outrider_web"))
	relay.awaitReady(t)
	site.awaitReady(t)
	s.site = "http://" + listenLine.FindStringSubmatch(site.log.String())[1]
	s.browser = newBrowser(t)
	t.Cleanup(func() {
		for _, p := range []*process{site, relay} { // also while a page is open that updates itself
			p.signal(syscall.SIGTERM)
			if code := p.ProcessState.ExitCode(); code != exitDone {
				t.Errorf("%v ended with %d", p.Args, code)
			}
		}
	})
	return s
}

// logIn opens the pages, and logs in.
func (s *somebody) logIn() {
	s.t.Helper()
	s.open(s.site)
	s.shows("Log in")
	s.fill("Token", s.token)
	s.click("Log in")
}

// happens inserts a chat event.
func (s *somebody) happens(content string) {
	s.t.Helper()
	mustExec(s.t, s.db.SQL, `SELECT outbox.publish(1, 'message_created', json_build_object('id', 1, 'content', $1::text, 'conversation', json_build_object('id', 42)))`, content)
}

// TestBrowserMainPaths: a webhook is added as on Chatwoot's page, a delivery
// arrives while its page is looked at, its timeline is read, and it is sent
// again. Each page on the way is one that all can use.
func TestBrowserMainPaths(t *testing.T) {
	t.Parallel()
	s := newSomebody(t)
	s.open(s.site)
	s.shows("Log in")
	s.accessible()
	s.picture("login")
	s.fill("Token", "outrider_wrong")
	s.click("Log in")
	s.shows("This token does not let in")
	s.accessible()
	s.logIn()

	s.shows("There are no webhooks configured for this account.")
	s.accessible()
	s.click("Add new webhook")
	s.shows("Webhook URL", "Live chat widget opened by the user (webwidget_triggered)")
	s.accessible()
	s.picture("add")
	s.fill("Webhook URL", s.URL+"/broken")
	s.fill("Webhook Name", "CRM sync")
	s.tick("Message created")
	s.click("Create webhook")
	s.shows("Its receiver needs this secret")
	s.accessible()
	s.click("Done")
	s.shows("CRM sync", "Enabled")
	s.accessible()

	s.click("Deliveries")
	s.shows("No deliveries yet")
	s.accessible()
	s.happens("Where is my parcel?")
	s.shows("Message created", "500") // by itself
	s.accessible()
	s.picture("deliveries")
	s.click("Message created")
	s.shows("Attempt 1", "500 in")
	s.accessible()
	s.click("Request and answer")
	s.shows("Beginning of the answer", "the database of the CRM is away")
	s.accessible()
	s.picture("timeline")

	// Mended, and sent again.
	s.click("Webhooks")
	s.click("CRM sync")
	s.shows("Send a test")
	s.click("Edit")
	s.fill("Webhook URL", s.URL+"/mended")
	s.accessible()
	s.click("Update webhook")
	s.shows("/mended")
	s.click("Deliveries")
	s.shows("Message created")
	s.click("Message created")
	s.click("Send again to webhook 1")
	s.shows("Replay 1", "finished") // the page comes anew of itself when it is over
	s.accessible()
	s.picture("replay")
	until(t, "the POST of the replay", func() (bool, string) {
		for _, post := range s.all() {
			if post.path == "/mended" && post.replay == "1" && strings.Contains(post.body, "Where is my parcel?") {
				return true, ""
			}
		}
		return false, "it did not come"
	})

	s.click("Replays")
	s.shows("Plan a replay")
	s.accessible()
	s.click("Plan a replay")
	s.shows("Make the plan")
	s.accessible()
	s.fill("Routed since", "1h")
	s.click("Make the plan")
	s.shows("Drop the plan")
	s.accessible()
	s.picture("plan")
	s.click("Drop the plan")
	s.shows("cancelled")

	s.click("Overview")
	s.shows("Overview")
	s.accessible()
	s.picture("overview")

	s.click("Webhooks")
	s.shows("1 webhook")
	s.accessible()
	s.picture("webhooks")
	s.click("CRM sync")
	s.shows("Recent changes", "token 1 (Mira)")
	s.accessible()
	s.picture("webhook")
	s.click("Rotate secret")
	s.shows("Rotate")
	s.accessible()
	s.open(s.site + "/accounts/1/webhooks/1")
	s.click("Delete")
	s.shows("Are you sure to delete the webhook?")
	s.accessible()
	s.click("Yes, Delete")
	s.shows("There are no webhooks configured for this account.")
	s.click("Log out")
	s.shows("Log in")
	s.open(s.site + "/accounts/1/webhooks")
	s.shows("Token")
}

// TestBrowserWithoutJavaScript goes the same way with forms and links alone.
func TestBrowserWithoutJavaScript(t *testing.T) {
	t.Parallel()
	s := newSomebody(t)
	s.script(false)
	s.logIn()
	s.click("Add new webhook")
	s.fill("Webhook URL", s.URL+"/plain")
	s.fill("Webhook Name", "Plain")
	s.tick("Message created")
	s.click("Create webhook")
	s.shows("Its receiver needs this secret")
	s.click("Done")
	s.shows("Plain", "Enabled")
	s.happens("Hello")
	s.click("Deliveries")
	until(t, "the delivery", func() (bool, string) {
		s.open(s.asks("location.href"))
		said := s.text()
		return strings.Contains(said, "Delivered"), said
	})
	s.click("Message created")
	s.shows("Attempt 1")
	s.click("Send again to webhook 1")
	s.at(func(path string) bool { return strings.Contains(path, "/replays/") })
	until(t, "the end of the replay", func() (bool, string) {
		s.open(s.asks("location.href"))
		said := s.text()
		return strings.Contains(strings.ToLower(said), "finished"), said
	})
}

// TestBrowserPagesUpdateThemselves: the overview changes when a delivery ends,
// and the relays' page when a relay comes or goes. What a reader has opened,
// scrolled to and stands on stays.
func TestBrowserPagesUpdateThemselves(t *testing.T) {
	t.Parallel()
	s := newSomebody(t)
	c := newCLI(t, s.db.DSN)
	c.env["OUTRIDER_ALLOW_CIDRS"] = "127.0.0.0/8"
	c.ok("webhook", "add", "--account", "1", "--url", s.URL+"/broken", "--name", "CRM sync")
	s.token, _ = c.object("token", "create", "--all-accounts", "--role", "viewer", "--name", "wall display")["token"].(string)
	s.logIn()
	s.at(func(path string) bool { return path == "/accounts" })

	s.open(s.site + "/accounts/1")
	s.shows("Live", "1 · CRM sync", "0 attempts")
	s.click("As a table")
	is := func(what, expression string) {
		t.Helper()
		until(t, what, func() (bool, string) {
			return s.asks("String("+expression+")") == "true", s.text()
		})
	}
	region := `document.querySelector('[aria-label$="as a table"]')`
	s.asks("window.kept = 'yes'; " + region + ".focus(); " + region + ".scrollTop = 60; ''")
	s.happens("Where is my parcel?")
	is("the attempt on the tiles", `document.getElementById("tiles").innerText.includes("1 attempt")`)
	is("the row of the webhook", `document.getElementById("w-1").dataset.state === "Failing"`)
	is("the reader stays where he was", `window.kept === "yes" && document.activeElement === `+region+` && `+region+`.scrollTop === 60 && `+region+`.closest("details").open`)
	s.asks(`document.querySelector("#w-1 a").focus(); window.row = document.getElementById("w-1"); ''`)
	s.happens("Hello?")
	is("another row", `document.getElementById("w-1") !== window.row`)
	is("the reader stands on what he stood on", `document.activeElement === document.querySelector("#w-1 a")`)
	s.accessible()
	s.click("Stop")
	s.shows("Stopped")

	s.open(s.site + "/overview")
	s.shows("Failing webhooks", "Account 1", "Working")
	s.accessible()
	s.open(s.site + "/relays")
	s.shows("Live", "Working")
	s.accessible()
	s.asks("window.kept = 'yes'")
	relay := startProcess(t, s.db.DSN, "serve", "--allow-unsafe")
	is("the second relay", `document.getElementById("r-2")?.dataset.state === "working"`)
	s.picture("relays")
	relay.signal(syscall.SIGTERM)
	is("the second relay is gone", `document.getElementById("r-2") === null && window.kept === "yes"`)
}
