package chatwoot_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/adapters/chatwoot"
)

// canned answers each request with the same.
type canned struct {
	status           int
	media, leads     string
	body             string
	requests, closed int
}

func (c *canned) RoundTrip(*http.Request) (*http.Response, error) {
	c.requests++
	return &http.Response{
		StatusCode: c.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {c.media}, "Location": {c.leads}}, Body: c,
	}, nil
}

func (c *canned) Read(b []byte) (int, error) {
	if c.body == "" {
		return 0, io.EOF
	}
	n := copy(b, c.body)
	c.body = c.body[n:]
	return n, nil
}

func (c *canned) Close() error { c.closed++; return nil }

// FuzzAnswer: whatever is at the address that is taken for Chatwoot's, its answer
// is a list of the account's webhooks as encoding/json reads it, or an error of a
// few words that the terminal can show.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		twoWebhooks, "", "null", "[]", "{}", `{"payload":null}`, `{"payload":{"webhooks":null}}`, `{"payload":{"webhooks":[]}}`, `{"payload":{"webhooks":[{}]}}`,
		`{"payload":{"webhooks":[{"account_id":7,"id":-1,"inbox":null,"inbox_id":9223372036854775807}]}}`, `{"payload":{"webhooks":[{"account_id":8}]}}`, `{"payload":{"webhooks":"x"}}`,
		`{"errors":["You need to sign in"]}`, `{"error":"` + strings.Repeat("ü", 200) + `"}`, `{"message":"\u001b[31m"}`, "<html>", "\x00\xff",
	} {
		for _, status := range []uint16{200, 401, 403, 404, 429, 302, 500, 204} {
			f.Add(status, "application/json; charset=utf-8", "https://elsewhere.example/", body)
		}
	}
	f.Add(uint16(301), "", strings.Repeat("x", 5000), "")
	f.Add(uint16(200), "\xff"+strings.Repeat("y", 5000), "", "z")
	base, err := chatwoot.ParseURL("https://chat.example.com/sub")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status uint16, media, leads, body string) {
		if status < 200 || status > 999 {
			return // net/http takes care of interim ones
		}
		answer := &canned{status: int(status), media: media, leads: leads, body: body}
		hooks, err := chatwoot.NewAPIOver(answer, base, token, time.Minute).Webhooks(t.Context(), 7)
		if answer.closed != answer.requests {
			t.Fatalf("%d of %d answers were closed", answer.closed, answer.requests)
		}
		if err == nil {
			var read struct {
				Payload struct {
					Webhooks []struct {
						AccountID int64  `json:"account_id"`
						URL       string `json:"url"`
					} `json:"webhooks"`
				} `json:"payload"`
			}
			if json.Unmarshal([]byte(body), &read) != nil || status != http.StatusOK || len(read.Payload.Webhooks) != len(hooks) {
				t.Fatalf("%d %q gives %+v", status, body, hooks)
			}
			for i, hook := range hooks {
				if hook.AccountID != 7 || read.Payload.Webhooks[i].AccountID != 7 || hook.URL != read.Payload.Webhooks[i].URL {
					t.Fatalf("%q gives %+v", body, hook)
				}
			}
			return
		}
		said, ok := errors.AsType[*chatwoot.Error](err)
		if !ok || hooks != nil {
			t.Fatalf("%d %q gives %+v beside the error %v", status, body, hooks, err)
		}
		if said.Problem == "" || said.Advice == "" || len(said.Problem) > 600 || !utf8.ValidString(said.Problem) || strings.Contains(said.Problem, token) {
			t.Fatalf("%d %q %q %q gives the problem %q", status, media, leads, body, said.Problem)
		}
	})
}

// FuzzRow: a row of the table is read as encoding/json reads it, and no row does
// harm.
func FuzzRow(f *testing.F) {
	for _, row := range []string{
		`{"id":41,"name":"CRM","url":"https://a.example","account_id":7,"subscriptions":["message_created"],"secret":"x","webhook_type":1,"inbox_id":3}`,
		`{"id":"41"}`, `{"subscriptions":"message_created"}`, `{"inbox_id":null,"webhook_type":null}`, `{"secret":{"p":"x","h":{}}}`, `null`, `[]`, ``, `{"URL":"x"}`,
	} {
		f.Add([]byte(row))
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		hook, err := chatwoot.DecodeRow(row)
		var read struct {
			ID            int64
			URL           string
			Subscriptions []string
		}
		if json.Unmarshal(row, &read) != nil {
			if err == nil {
				t.Fatalf("%q gives %+v", row, hook)
			}
			return
		}
		if err == nil && (hook.ID != read.ID || hook.URL != read.URL || len(hook.Subscriptions) != len(read.Subscriptions) || hook.InboxID < 0 && !strings.Contains(string(row), "-")) {
			t.Fatalf("%q gives %+v", row, hook)
		}
	})
}

// FuzzAddress: an address that is taken is one that requests can be made to, and
// leaves no room for a password.
func FuzzAddress(f *testing.F) {
	for _, text := range []string{
		"", "https://chat.example.com", "https://chat.example.com/", "http://[::1]:3000//", "https://u:p@chat.example.com", "https://chat.example.com?a=b", "https://chat.example.com/#x",
		"chat.example.com", "ftp://x", "https://", "https://chat.example.com/%2f%zz", "https://chat.example.com/a%00b", "https://ü.example",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := chatwoot.ParseURL(text)
		if err != nil {
			return
		}
		if u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			t.Fatalf("%q is taken for %q", text, u)
		}
		if _, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u.JoinPath("api").String(), http.NoBody); err != nil {
			t.Fatalf("no request can be made to %q: %v", text, err)
		}
	})
}
