package httpapi_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

const (
	formType = "application/x-www-form-urlencoded"
	partType = "multipart/form-data; boundary=x"
)

// part is a part of a form of several.
func part(name, value string) string {
	return fmt.Sprintf("--x\r\nContent-Disposition: form-data; name=%q\r\n\r\n%s\r\n", name, value)
}

// TestChatwootTakes: what becomes of a request to create, in the words of its
// webhook: name, url, subscriptions, inbox.
func TestChatwootTakes(t *testing.T) {
	t.Parallel()
	const (
		url      = "https://hooks.crm.example/in"
		defaults = `["conversation_status_changed","conversation_updated","conversation_created","contact_created","contact_updated","message_created","message_updated","webwidget_triggered"]`
		one      = `["message_created"]`
		plain    = `null ` + url + ` ` + defaults
	)
	s := newSite(t, nil)
	account := 100
	for _, c := range []struct{ name, form, query, body, want string }{
		{"Flat", "", "", `{"url":"` + url + `"}`, plain},
		{"Wrapped", "", "", `{"webhook":{"url":"` + url + `"}}`, plain},
		{"WrappedWins", "", "", `{"url":"https://other.example","webhook":{"url":"` + url + `"}}`, plain},
		{"TheLastOfTwoKeysCounts", "", "", `{"url":"https://other.example","url":"` + url + `"}`, plain},
		{"TheLastOfTwoWrappersCounts", "", "", `{"webhook":{"url":"https://other.example","name":"x"},"webhook":{"url":"` + url + `"}}`, plain},
		{"UnknownNames", "", "", `{"url":"` + url + `","foo":{"bar":[1]},"secret":"mine-mine-mine","webhook_type":1,"id":9,"account_id":8}`, plain},
		{"NullSubscriptions", "", "", `{"url":"` + url + `","subscriptions":null}`, plain},
		{"SubscriptionsAreNoList", "", "", `{"url":"` + url + `","subscriptions":"message_created"}`, plain},
		{"SubscriptionsOfObjects", "", "", `{"url":"` + url + `","subscriptions":["contact_created",{"a":1}]}`, plain},
		{"NullInSubscriptions", "", "", `{"url":"` + url + `","subscriptions":[null,"message_created"]}`, `null ` + url + ` ` + one},
		{"OrderIsKept", "", "", `{"url":"` + url + `","subscriptions":["message_created","contact_created","message_created"]}`, `null ` + url + ` ["message_created","contact_created"]`},
		{"AllEvents", "", "", `{"url":"` + url + `","subscriptions":["inbox_updated","inbox_created","conversation_typing_off","conversation_typing_on","webwidget_triggered","message_updated","message_created","contact_updated","contact_created","conversation_created","conversation_updated","conversation_status_changed"]}`,
			`null ` + url + ` ["inbox_updated","inbox_created","conversation_typing_off","conversation_typing_on","webwidget_triggered","message_updated","message_created","contact_updated","contact_created","conversation_created","conversation_updated","conversation_status_changed"]`},
		{"Name", "", "", `{"url":"` + url + `","name":"<CRM> & \"co\" ü"}`, `"\u003cCRM\u003e \u0026 \"co\" ü" ` + url + ` ` + defaults},
		{"NameIsANumber", "", "", `{"url":"` + url + `","name":1.50}`, `"1.50" ` + url + ` ` + defaults},
		{"NameIsABool", "", "", `{"url":"` + url + `","name":true}`, `"t" ` + url + ` ` + defaults},
		{"NameIsAList", "", "", `{"url":"` + url + `","name":["x"]}`, plain},
		{"EmptyName", "", "", `{"url":"` + url + `","name":""}`, plain},
		{"NullName", "", "", `{"url":"` + url + `","name":null}`, plain},
		{"Inbox", "", "", `{"url":"` + url + `","inbox_id":12}`, plain + ` {"id":12,"name":null}`},
		{"InboxIsText", "", "", `{"url":"` + url + `","inbox_id":"12"}`, plain + ` {"id":12,"name":null}`},
		{"NullInbox", "", "", `{"url":"` + url + `","inbox_id":null}`, plain},
		{"ZeroInbox", "", "", `{"url":"` + url + `","inbox_id":0}`, plain},
		{"OtherJSON", "application/vnd.api+json", "", `{"url":"` + url + `"}`, plain},
		{"JSONWithACharset", "application/json; charset=utf-8", "", `{"url":"` + url + `"}`, plain},
		{"JSONInOtherCase", "Application/JSON", "", `{"url":"` + url + `"}`, plain},
		{"Form", formType, "", "webhook[url]=" + url + "&webhook[name]=CRM+sync&webhook[subscriptions][]=message_created&webhook%5Binbox_id%5D=12", `"CRM sync" ` + url + ` ` + one + ` {"id":12,"name":null}`},
		{"FormWithNested", formType, "", "webhook[url]=" + url + "&webhook[name][first]=x&webhook[subscriptions]=contact_created&other[url]=x", plain},
		{"FormTheLastCounts", formType, "", "webhook[url]=x&webhook[url]=" + url, plain},
		{"FormWithoutAType", "none", "", "webhook[url]=" + url, plain},
		{"Parts", partType, "", part("webhook[url]", url) + part("webhook[subscriptions][]", "message_created") + "--x--\r\n", `null ` + url + ` ` + one},
		{"Query", "", "?webhook[url]=" + url + "&webhook[name]=q", "", `"q" ` + url + ` ` + defaults},
		{"QueryBesideFlatJSON", "", "?webhook[url]=" + url, `{"url":"https://other.example"}`, plain},
		{"BodyBeforeQuery", "", "?webhook[url]=https://other.example", `{"webhook":{"url":"` + url + `"}}`, plain},
		{"Userinfo", "", "", `{"url":"https://user:pass@hooks.crm.example/in"}`, plain},
		{"Spaces", "", "", `{"url":" ` + url + ` "}`, plain},
		{"PublicAddress", "", "", `{"url":"http://9.9.9.9:8080/x?a=1&b=<"}`, `null http://9.9.9.9:8080/x?a=1\u0026b=\u003c ` + defaults},
	} {
		account++
		parts := strings.SplitN(c.want, " http", 2)
		address, rest, _ := strings.Cut("http"+parts[1], " ")
		subscriptions, inbox, _ := strings.Cut(rest, " ")
		if inbox != "" {
			inbox = `,"inbox":` + inbox
		}
		got := s.send(ofAll, http.MethodPost, fmt.Sprintf("/api/v1/accounts/%d/webhooks%s", account, c.query), c.form, c.body)
		want := fmt.Sprintf(`{"payload":{"webhook":{"id":41,"name":%s,"url":%s,"account_id":%d,"subscriptions":%s,"secret":"hidden"%s}}}`, parts[0], `"`+address+`"`, account, subscriptions, inbox)
		if got.status != http.StatusOK || faceless(got.body) != want {
			t.Errorf("%s: got  %d %s\nwant %s", c.name, got.status, faceless(got.body), want)
		}
		if hooks, err := s.hooks.List(t.Context(), domain.AccountID(account)); err != nil || len(hooks) != 1 || hooks[0].Settings.OrderHold != domain.DefaultOrderHold || hooks[0].Credential.IsZero() == (c.name == "Userinfo") {
			t.Errorf("%s: kept is %+v, %v", c.name, hooks, err)
		}
	}
}

// TestChatwootRefuses: each way to be refused has its status, and says what is
// wrong.
func TestChatwootRefuses(t *testing.T) {
	t.Parallel()
	const (
		missing = `{"error":"param is missing or the value is empty: webhook"}`
		noURL   = `{"message":"Url is invalid","attributes":["url"]}`
		events  = `{"message":"Subscriptions Invalid events","attributes":["subscriptions"]}`
		unfound = `{"error":"Resource could not be found"}`
		other   = `{"error":"You are not authorized to access this account"}`
		role    = `{"error":"You are not authorized to do this action"}`
		signIn  = `{"errors":["You need to sign in or sign up before continuing."]}`
		noRoute = `{"status":404,"error":"Not Found"}`
		bad     = `{"status":400,"error":"Bad Request: `
		ok      = `"url":"https://ok.example"`
		large   = `{"status":413,"error":"Payload Too Large: 1048576 bytes are accepted"}`
	)
	s := newSite(t, nil)
	s.send(ofAll, http.MethodPost, sevenHooks, "", `{"url":"https://taken.example/in"}`).want(http.StatusOK, `{"payload":{"webhook":{"id":41,"name":null,"url":"https://taken.example/in","account_id":7,"subscriptions":["conversation_status_changed","conversation_updated","conversation_created","contact_created","contact_updated","message_created","message_updated","webwidget_triggered"],"secret":"hidden"}}}`)
	eights, _ := s.send(ofAll, http.MethodPost, "/api/v1/accounts/8/webhooks", "", `{`+ok+`}`).webhook()
	deleted, _ := s.send(ofAll, http.MethodPost, sevenHooks, "", `{"url":"https://gone.example"}`).webhook()
	s.send(ofAll, http.MethodDelete, fmt.Sprintf("%s/%d", sevenHooks, deleted), "", "").want(http.StatusOK, "")
	ofAnother, ofThePast := fmt.Sprintf("%s/%d", sevenHooks, eights), fmt.Sprintf("%s/%d", sevenHooks, deleted)
	huge := strings.Repeat("x", 1<<20)

	for _, c := range []struct {
		name, token, method, path, form, body string
		status                                int
		want                                  string
	}{
		{"NoToken", "", "GET", sevenHooks, "", "", 401, signIn},
		{"NoTokenPost", "", "POST", sevenHooks, "", `{` + ok + `}`, 401, signIn},
		{"WrongToken", ofNobody, "GET", sevenHooks, "", "", 401, `{"error":"Invalid Access Token"}`},
		{"ViewerLists", views, "GET", sevenHooks, "", "", 401, role},
		{"OperatorLists", operates, "GET", sevenHooks, "", "", 401, role},
		{"ViewerOfAll", viewsAll, "DELETE", sevenHooks + "/1", "", "", 401, role},
		{"OtherAccount", ofEight, "GET", sevenHooks, "", "", 401, other},
		{"OtherAccountPatch", ofEight, "PATCH", sevenHooks + "/1", "", `{"name":"x"}`, 401, other},
		{"OtherAccountAndViewer", views, "GET", "/api/v1/accounts/8/webhooks", "", "", 401, other},
		{"AccountIsAWord", ofSeven, "GET", "/api/v1/accounts/seven/webhooks", "", "", 404, unfound},
		{"AccountZero", ofAll, "GET", "/api/v1/accounts/0/webhooks", "", "", 404, unfound},
		{"TheOperatorsAccount", ofAll, "GET", "/api/v1/accounts/-1/webhooks", "", "", 404, unfound},
		{"AccountTooLarge", ofAll, "GET", "/api/v1/accounts/9223372036854775808/webhooks", "", "", 404, unfound},
		{"IDOfAnotherAccount", ofAll, "PATCH", ofAnother, "", `{"name":"x"}`, 404, unfound},
		{"IDOfAnotherAccountDelete", ofSeven, "DELETE", ofAnother, "", "", 404, unfound},
		{"IDOfADeleted", ofSeven, "PUT", ofThePast, "", `{"name":"x"}`, 404, unfound},
		{"IDOfADeletedBeforeMissing", ofSeven, "PUT", ofThePast, "", `{}`, 404, unfound},
		{"IDIsAWord", ofSeven, "PATCH", sevenHooks + "/one", "", `{"name":"x"}`, 404, unfound},
		{"IDTooLarge", ofSeven, "DELETE", sevenHooks + "/99999999999999999999", "", "", 404, unfound},
		{"NotFoundBeforeMissing", ofSeven, "PATCH", sevenHooks + "/999", "", `{}`, 404, unfound},

		{"NoBody", ofSeven, "POST", sevenHooks, "", "", 422, missing},
		{"EmptyObject", ofSeven, "POST", sevenHooks, "", "{}", 422, missing},
		{"EmptyWrapper", ofSeven, "POST", sevenHooks, "", `{"webhook":{}}`, 422, missing},
		{"NullWrapper", ofSeven, "POST", sevenHooks, "", `{"webhook":null,` + ok + `}`, 422, missing},
		{"WrapperIsText", ofSeven, "POST", sevenHooks, "", `{"webhook":"x"}`, 422, missing},
		{"WrapperIsAList", ofSeven, "POST", sevenHooks, "", `{"webhook":[{` + ok + `}]}`, 422, missing},
		{"OnlyUnknownNames", ofSeven, "POST", sevenHooks, "", `{"foo":1}`, 422, missing},
		{"AList", ofSeven, "POST", sevenHooks, "", `[{` + ok + `}]`, 422, missing},
		{"AText", ofSeven, "POST", sevenHooks, "", `"x"`, 422, missing},
		{"Null", ofSeven, "POST", sevenHooks, "", `null`, 422, missing},
		{"QueryBesideNothing", ofSeven, "POST", sevenHooks + "?url=https://ok.example", formType, "", 422, missing},
		{"FlatForm", ofSeven, "POST", sevenHooks, formType, "url=https://ok.example", 422, missing},
		{"JSONAsAForm", ofSeven, "POST", sevenHooks, formType, `{` + ok + `}`, 422, missing},
		{"JSONAsText", ofSeven, "POST", sevenHooks, "text/plain", `{` + ok + `}`, 422, missing},
		{"FormOfOneText", ofSeven, "POST", sevenHooks, formType, "webhook=x", 422, missing},
		{"OnlyAFile", ofSeven, "POST", sevenHooks, partType, "--x\r\nContent-Disposition: form-data; name=\"webhook[url]\"; filename=\"a\"\r\n\r\nx\r\n--x--\r\n", 422, missing},

		{"NothingPermitted", ofSeven, "POST", sevenHooks, "", `{"webhook":{"foo":1}}`, 422, noURL},
		{"NoURL", ofSeven, "POST", sevenHooks, "", `{"name":"x"}`, 422, noURL},
		{"NullURL", ofSeven, "POST", sevenHooks, "", `{"url":null,"name":"x"}`, 422, noURL},
		{"URLIsAList", ofSeven, "POST", sevenHooks, "", `{"url":["https://ok.example"]}`, 422, noURL},
		{"URLIsANumber", ofSeven, "POST", sevenHooks, "", `{"url":5}`, 422, noURL},
		{"OtherScheme", ofSeven, "POST", sevenHooks, "", `{"url":"ftp://ok.example"}`, 422, noURL},
		{"NullURLPatch", ofSeven, "PATCH", sevenHooks + "/1", "", `{"url":null}`, 422, noURL},
		{"NoHost", ofSeven, "POST", sevenHooks, "", `{"url":"https://"}`, 422, `{"message":"Url is invalid: has no host","attributes":["url"]}`},
		{"Port", ofSeven, "POST", sevenHooks, "", `{"url":"https://ok.example:0"}`, 422, `{"message":"Url is invalid: the port is not within 1 to 65535","attributes":["url"]}`},
		{"PrivateAddress", ofSeven, "POST", sevenHooks, "", `{"url":"http://10.1.2.3/x"}`, 422, `{"message":"Url is invalid: the address 10.1.2.3 is refused: private (RFC 1918); an operator may allow networks by OUTRIDER_ALLOW_CIDRS","attributes":["url"]}`},
		{"Unreadable", ofSeven, "POST", sevenHooks, "", `{"url":"https://user:hunter2@[::1"}`, 422, `{"message":"Url is invalid: cannot be parsed; write it like https://example.com/hook","attributes":["url"]}`},
		{"Duplicate", ofSeven, "POST", sevenHooks, "", `{"url":"https://taken.example/in"}`, 422, `{"message":"Url has already been taken","attributes":["url"]}`},
		{"DuplicateButForUserinfo", ofSeven, "POST", sevenHooks, "", `{"url":"https://u:p@taken.example/in"}`, 422, `{"message":"Url has already been taken","attributes":["url"]}`},
		{"DuplicateAndEvents", ofSeven, "POST", sevenHooks, "", `{"url":"https://taken.example/in","subscriptions":[]}`, 422, `{"message":"Url has already been taken, Subscriptions Invalid events","attributes":["url","subscriptions"]}`},
		{"NoSubscriptions", ofSeven, "POST", sevenHooks, "", `{` + ok + `,"subscriptions":[]}`, 422, events},
		{"UnknownEvent", ofSeven, "POST", sevenHooks, "", `{` + ok + `,"subscriptions":["message_created","message_deleted"]}`, 422, events},
		{"NumberAsEvent", ofSeven, "POST", sevenHooks, "", `{` + ok + `,"subscriptions":[1]}`, 422, events},
		{"OnlyNullAsEvent", ofSeven, "POST", sevenHooks, "", `{` + ok + `,"subscriptions":[null]}`, 422, events},
		{"EmptyEvent", ofSeven, "POST", sevenHooks, formType, "webhook[url]=https://ok.example&webhook[subscriptions][]=", 422, events},
		{"NULInTheName", ofSeven, "POST", sevenHooks, "", `{` + ok + `,"name":"a\u0000b"}`, 422, `{"message":"Name is not valid UTF-8 without NUL","attributes":["name"]}`},
		{"InboxIsAWord", ofSeven, "POST", sevenHooks, "", `{` + ok + `,"inbox_id":"first"}`, 422, `{"message":"Inbox is not a number","attributes":["inbox_id"]}`},
		{"InboxIsNegative", ofSeven, "POST", sevenHooks, "", `{` + ok + `,"inbox_id":-1}`, 422, `{"message":"Inbox is invalid: -1 is negative","attributes":["inbox_id"]}`},
		{"AllAtOnce", ofSeven, "POST", sevenHooks, "", `{"url":"x","subscriptions":["y"],"inbox_id":1.5,"name":"\u0000"}`, 422, `{"message":"Url is invalid, Subscriptions Invalid events, Inbox is not a number, Name is not valid UTF-8 without NUL","attributes":["url","subscriptions","inbox_id","name"]}`},

		{"BrokenJSON", ofSeven, "POST", sevenHooks, "", `{"url":`, 400, bad + `the body is not JSON: it ends too early"}`},
		{"NoJSON", ofSeven, "PATCH", sevenHooks + "/1", "", `{"url":x}`, 400, bad + `the body is not JSON: invalid character 'x' looking for beginning of value (byte 8)"}`},
		{"Blank", ofSeven, "POST", sevenHooks, "", ` `, 400, bad + `the body is not JSON: it ends too early"}`},
		{"TwoValues", ofSeven, "POST", sevenHooks, "", `{` + ok + `} {}`, 400, bad + `the body is not JSON: something follows the first value, which ends at byte 28"}`},
		{"NoUTF8", ofSeven, "POST", sevenHooks, "", "{\"url\":\"\xff\"}", 400, bad + `the body is not valid UTF-8"}`},
		{"FormNoUTF8", ofSeven, "POST", sevenHooks, formType, "webhook[name]=%ff", 400, bad + `a value of the form is not valid UTF-8"}`},
		{"FormEscape", ofSeven, "POST", sevenHooks, formType, "webhook[url]=%zz", 400, bad + `the body is not a form: invalid URL escape \"%zz\""}`},
		{"QueryEscape", ofSeven, "POST", sevenHooks + "?a=%zz", "", `{` + ok + `}`, 400, bad + `the query cannot be read: invalid URL escape \"%zz\""}`},
		{"PartsWithoutBoundary", ofSeven, "POST", sevenHooks, "multipart/form-data", part("webhook[url]", "x"), 400, bad + `the Content-Type multipart/form-data names no boundary"}`},
		{"PartsWithoutEnd", ofSeven, "POST", sevenHooks, partType, part("webhook[url]", "x"), 400, bad + `the body is not a form of several parts"}`},
		{"TooLarge", ofSeven, "POST", sevenHooks, "", `{` + ok + `,"name":"` + huge + `"}`, 413, large},
		{"TooLargeForm", ofSeven, "POST", sevenHooks, formType, "webhook[name]=" + huge, 413, large},
		{"TooLargeParts", ofSeven, "POST", sevenHooks, partType, part("webhook[name]", huge) + "--x--\r\n", 413, large},
		{"TooLargePatch", ofSeven, "PATCH", sevenHooks + "/1", "", `{` + ok + `,"name":"` + huge + `"}`, 413, large},

		{"NoRouteForOne", ofSeven, "GET", sevenHooks + "/1", "", "", 404, noRoute},
		{"NoRouteForAll", ofSeven, "DELETE", sevenHooks, "", "", 404, noRoute},
		{"NoRouteAtAll", ofSeven, "GET", "/api/v1/accounts/7/contacts.json", "", "", 404, noRoute},
		{"NoRouteAtTheRoot", "", "GET", "/api/v1/", "", "", 404, noRoute},
	} {
		if got := s.send(c.token, c.method, c.path, c.form, c.body); got.status != c.status || got.body != c.want {
			t.Errorf("%s: got  %d %s\nwant %d %s", c.name, got.status, got.body, c.status, c.want)
		}
		s.now = s.now.Add(time.Minute) // so that wrong tokens are not too many
	}
	if hooks, err := s.hooks.List(t.Context(), 0); err != nil || len(hooks) != 2 {
		t.Errorf("there are %d webhooks, %v", len(hooks), err)
	}
	if log := s.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "hunter2") {
		t.Errorf("the log is\n%s", log)
	}
}

// TestChatwootUpdates: only what is named changes, and the history says by whom.
func TestChatwootUpdates(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	id, secret := s.send(ofSeven, http.MethodPost, sevenHooks, "", `{"url":"https://user:pass@one.example/in","name":"One","inbox_id":12,"subscriptions":["contact_created"]}`).webhook()
	one := fmt.Sprintf("%s/%d", sevenHooks, id)
	const head = `{"payload":{"webhook":{"id":41,`
	for _, c := range []struct{ method, path, body, want string }{
		{http.MethodPatch, one, `{"name":"Two"}`, `"name":"Two","url":"https://one.example/in","account_id":7,"subscriptions":["contact_created"],"secret":"hidden","inbox":{"id":12,"name":null}`},
		{http.MethodPut, one, `{"webhook":{"subscriptions":["message_updated","contact_updated"]}}`, `"name":"Two","url":"https://one.example/in","account_id":7,"subscriptions":["message_updated","contact_updated"],"secret":"hidden","inbox":{"id":12,"name":null}`},
		{http.MethodPatch, one + ".json", `{"inbox_id":null,"name":null}`, `"name":null,"url":"https://one.example/in","account_id":7,"subscriptions":["message_updated","contact_updated"],"secret":"hidden"`},
		{http.MethodPatch, one + "/", `{"subscriptions":null,"id":41}`, `"name":null,"url":"https://one.example/in","account_id":7,"subscriptions":["message_updated","contact_updated"],"secret":"hidden"`},
		// The URL as it is shown keeps the user and password that it does not show.
		{http.MethodPatch, one, `{"url":"https://one.example/in","subscriptions":["contact_updated","message_updated"]}`, `"name":null,"url":"https://one.example/in","account_id":7,"subscriptions":["contact_updated","message_updated"],"secret":"hidden"`},
	} {
		s.send(ofSeven, c.method, c.path, "", c.body).want(http.StatusOK, head+c.want+`}}}`)
	}
	hook, err := s.hooks.Get(t.Context(), id)
	if err != nil || hook.Credential.Reveal() != "user:pass" || hook.Secret.Reveal() != secret || hook.Settings.OrderHold != domain.DefaultOrderHold {
		t.Errorf("kept is %+v, %v", hook, err)
	}
	if _, again := s.send(ofSeven, http.MethodPatch, one, "", `{"url":"https://two.example/in"}`).webhook(); again != secret {
		t.Error("the secret changed")
	}
	s.send(ofSeven, http.MethodPost, sevenHooks, "", `{"url":"https://one.example/in"}`).webhook()
	s.send(ofSeven, http.MethodPatch, one, "", `{"url":"https://one.example/in"}`).want(http.StatusUnprocessableEntity, `{"message":"Url has already been taken","attributes":["url"]}`)
	s.send(ofSeven, http.MethodPatch, one, "", `{"url":"https://one.example/in","subscriptions":[]}`).want(http.StatusUnprocessableEntity, `{"message":"Url has already been taken, Subscriptions Invalid events","attributes":["url","subscriptions"]}`)
	s.send(ofSeven, http.MethodPatch, one, "", `{"url":"https://two.example/in","subscriptions":[]}`).want(http.StatusUnprocessableEntity, `{"message":"Subscriptions Invalid events","attributes":["subscriptions"]}`)
	s.send(ofAll, http.MethodDelete, one+".json", "", "").want(http.StatusOK, "")

	rows, err := s.db.SQL.QueryContext(t.Context(), `SELECT actor || ' ' || change FROM audit.webhook_changes WHERE webhook_id = $1 ORDER BY webhook_version`, int64(id))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var history []string
	for rows.Next() {
		var entry string
		if err := rows.Scan(&entry); err != nil {
			t.Fatal(err)
		}
		history = append(history, entry)
	}
	by := "token 1 (CRM sync) "
	if want := []string{by + "registered", by + "updated", by + "updated", by + "updated", by + "updated", by + "updated", "token 2 (all) deleted"}; !slices.Equal(history, want) || rows.Err() != nil {
		t.Errorf("the history is %q, %v", history, rows.Err())
	}
}

// What a webhook has that Chatwoot does not know stays, and may be sent back.
func TestChatwootKeepsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	hook, _, err := s.hooks.Change(t.Context(), 7, 0, "", domain.RegisterWebhook{
		Settings: domain.Settings{URL: "https://one.example/in", Subscriptions: []string{"order_paid", "contact_created"}, Timeout: 9 * time.Second, RateLimit: 3},
		Headers:  []domain.Header{domain.NewHeader("X-Key", "hunter2")}, Secret: domain.CredentialFromText("hV3kQ9tZrB2mXw7cNf5pLd8s"),
	})
	if err == nil {
		_, _, err = s.hooks.Change(t.Context(), 7, hook.ID, "", domain.PauseWebhook{})
	}
	if err != nil {
		t.Fatal(err)
	}
	one := fmt.Sprintf("%s/%d", sevenHooks, hook.ID)
	got := s.send(ofSeven, http.MethodPatch, one, "", `{"name":"x","subscriptions":["order_paid","message_created"]}`)
	got.want(http.StatusOK, `{"payload":{"webhook":{"id":41,"name":"x","url":"https://one.example/in","account_id":7,"subscriptions":["order_paid","message_created"],"secret":"hidden"}}}`)
	if _, secret := got.webhook(); secret != "hV3kQ9tZrB2mXw7cNf5pLd8s" {
		t.Errorf("the secret is %q", secret)
	}
	s.send(ofSeven, http.MethodPatch, one, "", `{"subscriptions":["order_sent"]}`).want(http.StatusUnprocessableEntity, `{"message":"Subscriptions Invalid events","attributes":["subscriptions"]}`)
	after, err := s.hooks.Get(t.Context(), hook.ID)
	if err != nil || after.State != domain.WebhookPaused || after.Settings.Timeout != 9*time.Second || after.Settings.RateLimit != 3 || !after.Headers.Has("x-key") {
		t.Errorf("kept is %+v, %v", after, err)
	}
}

// between lets somebody else in between a request's look and its change.
type between struct {
	httpapi.Webhooks
	then func()
}

func (b *between) Get(ctx context.Context, id domain.WebhookID) (domain.Webhook, error) {
	hook, err := b.Webhooks.Get(ctx, id)
	if then := b.then; then != nil {
		b.then = nil
		then()
	}
	return hook, err
}

func TestChatwootUpdatesLoseNoOtherChange(t *testing.T) {
	t.Parallel()
	slow := &between{}
	s := newSite(t, func(c *httpapi.Config) { slow.Webhooks, c.Webhooks = c.Webhooks, slow })
	id, _ := s.send(ofSeven, http.MethodPost, sevenHooks, "", `{"url":"https://one.example/in"}`).webhook()
	one := fmt.Sprintf("%s/%d", sevenHooks, id)
	slow.then = func() {
		if status := s.send(ofAll, http.MethodPatch, one, "", `{"subscriptions":["contact_created"],"name":"theirs"}`).status; status != http.StatusOK {
			t.Errorf("the other gets %d", status)
		}
	}
	s.send(ofSeven, http.MethodPatch, one, "", `{"name":"ours"}`).
		want(http.StatusOK, `{"payload":{"webhook":{"id":41,"name":"ours","url":"https://one.example/in","account_id":7,"subscriptions":["contact_created"],"secret":"hidden"}}}`)
	// One that goes meanwhile is gone.
	slow.then = func() { s.send(ofAll, http.MethodDelete, one, "", "").want(http.StatusOK, "") }
	s.send(ofSeven, http.MethodPatch, one, "", `{"name":"late"}`).want(http.StatusNotFound, `{"error":"Resource could not be found"}`)
}

func TestChatwootMasksSecrets(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *httpapi.Config) { c.MaskSecrets = true })
	id, secret := s.send(ofSeven, http.MethodPost, sevenHooks, "", `{"url":"https://one.example/in"}`).webhook()
	if hook, err := s.hooks.Get(t.Context(), id); err != nil || hook.Secret.Reveal() != secret {
		t.Errorf("at its creation the secret is %q, %v", secret, err)
	}
	for _, got := range []*answer{
		s.send(ofSeven, http.MethodGet, sevenHooks, "", ""),
		s.send(ofSeven, http.MethodPatch, fmt.Sprintf("%s/%d", sevenHooks, id), "", `{"name":"x"}`),
	} {
		if got.status != http.StatusOK || !strings.Contains(got.body, `"secret":"********"`) || strings.Contains(got.body, secret) {
			t.Errorf("got %d %s", got.status, got.body)
		}
	}
}

func TestChatwootTakesNetworksThatAreAllowed(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *httpapi.Config) { c.Addresses.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} })
	s.send(ofSeven, http.MethodPost, sevenHooks, "", `{"url":"http://10.1.2.3/x"}`).webhook()
}

// Answers are nobody's to keep, and a path may end in a format.
func TestChatwootLists(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.send(ofSeven, http.MethodPost, sevenHooks+".json", "", `{"url":"https://one.example/in"}`).webhook()
	for _, path := range []string{sevenHooks, sevenHooks + "/", sevenHooks + ".json", sevenHooks + "?page=2"} {
		got := s.send(ofSeven, http.MethodGet, path, "none", "")
		if got.status != http.StatusOK || !strings.HasPrefix(got.body, `{"payload":{"webhooks":[{"id":`) || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d %s, %v", path, got.status, got.body, got.header)
		}
	}
	if got := s.send(ofSeven, http.MethodHead, sevenHooks, "none", ""); got.status != http.StatusOK || got.body != "" {
		t.Errorf("HEAD gets %d %s", got.status, got.body)
	}
}

// TestChatwootListsWhatCannotBeRead: by its name, beside the others.
func TestChatwootListsWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	for _, url := range []string{"https://one.example/in", "https://two.example/in"} {
		s.send(ofSeven, http.MethodPost, sevenHooks, "", `{"url":"`+url+`","subscriptions":["message_created"]}`).webhook()
	}
	if _, err := s.db.SQL.ExecContext(t.Context(), `UPDATE relay.webhooks SET settings = '{"timeout": "soon"}' WHERE id = (SELECT min(id) FROM relay.webhooks)`); err != nil {
		t.Fatal(err)
	}
	s.send(ofSeven, http.MethodGet, sevenHooks, "none", "").want(http.StatusOK, `{"payload":{"webhooks":[`+
		`{"id":41,"name":"its settings cannot be read: time: invalid duration \"soon\"","url":"","account_id":7,"subscriptions":[],"secret":""},`+
		`{"id":41,"name":null,"url":"https://two.example/in","account_id":7,"subscriptions":["message_created"],"secret":"hidden"}]}}`)
}

func TestChatwootLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *httpapi.Config) { c.RequestsPerMinute = 2 })
	for range 2 {
		s.send(ofSeven, http.MethodGet, sevenHooks, "", "").want(http.StatusOK, `{"payload":{"webhooks":[]}}`)
	}
	many := s.send(ofSeven, http.MethodGet, sevenHooks, "", "")
	many.want(http.StatusTooManyRequests, `{"error":"Retry later: too many requests with this token: try again in 30 s"}`)
	if many.header.Get("Retry-After") != "30" {
		t.Errorf("Retry-After is %q", many.header.Get("Retry-After"))
	}
	for range 10 {
		s.send(ofNobody, http.MethodDelete, sevenHooks+"/1", "", "").want(http.StatusUnauthorized, `{"error":"Invalid Access Token"}`)
	}
	many = s.send(ofNobody, http.MethodDelete, sevenHooks+"/1", "", "")
	many.want(http.StatusTooManyRequests, `{"error":"Retry later: too many wrong tokens from this address: try again in 6 s"}`)
	if many.header.Get("Retry-After") != "6" {
		t.Errorf("Retry-After is %q", many.header.Get("Retry-After"))
	}
}

// TestChatwootByTokens: one that is revoked or expired is as one that never was.
func TestChatwootByTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	tokens := postgres.NewTokens(s.db.SQL)
	s.serve(httpapi.Config{Tokens: tokens, Webhooks: s.hooks, Log: slog.New(slog.DiscardHandler)})
	access := domain.Access{Name: "CRM sync", AccountID: 7, Role: domain.RoleAdministrator}
	id, token, err := tokens.Create(t.Context(), access, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := tokens.Create(t.Context(), access, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{token, other} {
		s.send(good, http.MethodGet, sevenHooks, "", "").want(http.StatusOK, `{"payload":{"webhooks":[]}}`)
	}
	if _, err := tokens.Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.SQL.ExecContext(t.Context(), `UPDATE relay.tokens SET expires_at = clock_timestamp() WHERE token_id <> $1`, int64(id)); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{token, other, "outrider_" + strings.Repeat("A", 43), "x"} {
		s.send(bad, http.MethodPost, sevenHooks, "", `{"url":"https://one.example"}`).want(http.StatusUnauthorized, `{"error":"Invalid Access Token"}`)
	}
}

// Whatever may be kept is kept, however long it is.
func TestChatwootTakesLongTexts(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	random := make([]byte, 300_000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(random)
	text := base64.RawURLEncoding.EncodeToString(random) // nothing that PostgreSQL could compress
	url := "https://one.example/" + text
	s.send(ofSeven, http.MethodPost, sevenHooks, "", fmt.Sprintf(`{"url":%q,"name":%q}`, url[:2500], text)).webhook()
	s.send(ofSeven, http.MethodPost, sevenHooks, "", fmt.Sprintf(`{"url":%q}`, url[:2500])).want(http.StatusUnprocessableEntity, `{"message":"Url has already been taken","attributes":["url"]}`)
	s.send(ofSeven, http.MethodPost, sevenHooks, "", fmt.Sprintf(`{"url":%q}`, url[:2501])).
		want(http.StatusUnprocessableEntity, `{"message":"Url is invalid: 2501 characters are too long; 2500 are accepted","attributes":["url"]}`)
}

func TestChatwootWithoutItsDatabase(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	if err := s.db.SQL.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, body string }{
		{http.MethodGet, sevenHooks, ""}, {http.MethodPost, sevenHooks, `{"url":"https://one.example"}`},
		{http.MethodPatch, sevenHooks + "/1", `{"name":"x"}`}, {http.MethodDelete, sevenHooks + "/1", ""},
	} {
		got := s.send(ofSeven, c.method, c.path, "", c.body)
		got.want(http.StatusServiceUnavailable, `{"error":"Retry later: the webhooks cannot be read or changed now"}`)
		if got.header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After is %q", got.header.Get("Retry-After"))
		}
	}
	if log := s.log.String(); strings.Count(log, "a request cannot be answered") != 4 || !strings.Contains(log, `route="PATCH /api/v1/accounts/{account}/webhooks/{webhook}"`) {
		t.Errorf("the log is\n%s", log)
	}
}

// broken panics.
type broken struct{ httpapi.Webhooks }

func (broken) List(context.Context, domain.AccountID) ([]domain.Webhook, error) { panic("hunter2") }

func TestChatwootPanics(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *httpapi.Config) { c.Webhooks = broken{c.Webhooks} })
	s.send(ofSeven, http.MethodGet, sevenHooks, "", "").want(http.StatusInternalServerError, `{"status":500,"error":"Internal Server Error"}`)
	if log := s.log.String(); !strings.Contains(log, "panic=hunter2") || !strings.Contains(log, "chatwoot_webhooks.go") {
		t.Errorf("the log is\n%s", log)
	}
}
