package httpsend_test

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpsend"
	"github.com/outrider-relay/outrider/domain"
)

// signedRequest gives the headers of a request as the sender makes them.
func signedRequest(secret, body string) http.Header {
	at := present.Unix()
	key := domain.CredentialFromText(secret).StandardKey()
	header := http.Header{}
	header.Set("webhook-id", vectorID)
	header.Set("webhook-timestamp", strconv.FormatInt(at, 10))
	header.Set("webhook-signature", httpsend.StandardSignature(key, vectorID, at, []byte(body)))
	header.Set("X-Chatwoot-Timestamp", strconv.FormatInt(at, 10))
	header.Set("X-Chatwoot-Signature", httpsend.ChatwootSignature(secret, at, []byte(body)))
	return header
}

func TestDiagnose(t *testing.T) {
	t.Parallel()
	const sent = `{"event":"message_created","content":"a \u003c b","id":1}`
	encoded := strings.TrimPrefix(standardSecret, "whsec_")
	key := domain.CredentialFromText(standardSecret).StandardKey()
	set := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	drop := func(names ...string) func(http.Header) {
		return func(h http.Header) {
			for _, name := range names {
				h.Del(name)
			}
		}
	}
	const verified, absent = "verified", "no header of this scheme"
	for _, c := range []struct {
		name               string
		signed, given      string // secrets; given "" is the one signed with
		sent, body         string // "" is the same
		change             func(http.Header)
		late               time.Duration
		standard, chatwoot string
	}{
		{name: "Genuine", standard: verified, chatwoot: verified},
		{name: "GenuineOpaque", signed: opaqueSecret, standard: verified, chatwoot: verified},
		{name: "TooOld", late: 3 * time.Hour, standard: "too old: 3h0m0s before", chatwoot: "too old: 3h0m0s before"},
		{name: "FromTheFuture", late: -time.Hour, standard: "1h0m0s after", chatwoot: "1h0m0s after"},
		{name: "OtherSecret", given: opaqueSecret, standard: "not of this secret and this body", chatwoot: "not of this secret and this body"},
		{name: "OtherBody", body: `{"event":"message_created","content":"forged"}`, standard: "not of this secret and this body", chatwoot: "not of this secret and this body"},
		{name: "LineBreakAdded", body: sent + "\n", standard: "line break at its end that was not signed", chatwoot: "line break at its end that was not signed"},
		{name: "LineBreakLost", sent: sent + "\n", body: sent, standard: "lacks the line break", chatwoot: "lacks the line break"},
		{name: "LineBreaksChanged", sent: "{\n\"id\":1}", body: "{\r\n\"id\":1}", standard: "line breaks of the body were changed", chatwoot: "line breaks of the body were changed"},
		{name: "ByteOrderMark", body: "\ufeff" + sent, standard: "byte order mark", chatwoot: "byte order mark"},
		{name: "SpacesAdded", body: "{ \"event\": \"message_created\",\n \"content\": \"a \\u003c b\", \"id\": 1 }", standard: "encoded again", chatwoot: "encoded again"},
		{name: "EscapesLost", body: strings.ReplaceAll(sent, `\u003c`, "<"), standard: "encoded again", chatwoot: "encoded again"},
		{name: "EscapesAdded", sent: strings.ReplaceAll(sent, `\u003c`, "<"), body: sent, standard: "encoded again", chatwoot: "encoded again"},
		{name: "HeadersMissing", change: drop("webhook-id", "X-Chatwoot-Timestamp"), standard: "header missing: webhook-id", chatwoot: "header missing: X-Chatwoot-Timestamp"},
		{name: "ChatwootsAlone", change: drop("webhook-id", "webhook-timestamp", "webhook-signature"), standard: absent, chatwoot: verified},
		{name: "NotANumber", change: set("webhook-timestamp", "yesterday"), standard: "not a number of Unix seconds", chatwoot: verified},
		{name: "SchemesMixedUp", change: func(h http.Header) {
			standard, chatwoot := h.Get("webhook-signature"), h.Get("X-Chatwoot-Signature")
			h.Set("webhook-signature", chatwoot)
			h.Set("X-Chatwoot-Signature", standard)
		}, standard: "form of the other scheme", chatwoot: "form of the other scheme"},
		{name: "PrefixesLost", change: func(h http.Header) {
			h.Set("webhook-signature", strings.TrimPrefix(h.Get("webhook-signature"), "v1,"))
			h.Set("X-Chatwoot-Signature", strings.TrimPrefix(h.Get("X-Chatwoot-Signature"), "sha256="))
		}, standard: "v1, is missing", chatwoot: "sha256= is missing"},
		{name: "CapitalLetters", change: func(h http.Header) {
			h.Set("X-Chatwoot-Signature", "sha256="+strings.ToUpper(strings.TrimPrefix(h.Get("X-Chatwoot-Signature"), "sha256=")))
		}, standard: verified, chatwoot: "capital letters"},
		{name: "SecretWithoutPrefix", given: encoded, standard: "lacks its whsec_", chatwoot: "lacks its whsec_"},
		{name: "SecretInQuotes", given: `"` + standardSecret + `" `, standard: "spaces or quotation marks", chatwoot: "spaces or quotation marks"},
		{name: "OpaqueSecretInItsStandardForm", signed: opaqueSecret, given: "whsec_" + base64.StdEncoding.EncodeToString([]byte(opaqueSecret)), standard: verified, chatwoot: "made with the text of the secret"},
		{name: "SignedWithTheText", change: set("webhook-signature", httpsend.StandardSignature([]byte(standardSecret), vectorID, present.Unix(), []byte(sent))),
			standard: "with the text of the secret as the key", chatwoot: verified},
		{name: "SignedWithTheBase64", change: set("webhook-signature", httpsend.StandardSignature([]byte(encoded), vectorID, present.Unix(), []byte(sent))),
			standard: "with the text behind whsec_ as the key", chatwoot: verified},
		{name: "SecretAndBody", given: encoded, body: sent + "\n", standard: "lacks its whsec_: what is given is the base64 behind it; and the body has a line break", chatwoot: "lacks its whsec_; and the body has a line break"},
		{name: "Rotating", change: func(h http.Header) {
			old := "the-secret-of-before"
			h.Set("webhook-signature", h.Get("webhook-signature")+" "+httpsend.StandardSignature([]byte(old), vectorID, present.Unix(), []byte(sent)))
			h.Set("X-Chatwoot-Signature", httpsend.ChatwootSignature(old, present.Unix(), []byte(sent)))
		}, standard: verified, chatwoot: "being rotated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			signed, given, body, posted := standardSecret, c.given, sent, sent
			if c.signed != "" {
				signed = c.signed
			}
			if given == "" {
				given = signed
			}
			if c.sent != "" {
				posted = c.sent
			}
			if c.body != "" {
				body = c.body
			}
			header := signedRequest(signed, posted)
			if c.change != nil {
				c.change(header)
			}
			found := httpsend.Diagnose(domain.CredentialFromText(given), header, []byte(body), present.Add(c.late))
			for i, want := range []string{c.standard, c.chatwoot} {
				d := found[i]
				switch {
				case d.Verified != (want == verified) || d.Verified != (d.Problem == ""):
					t.Errorf("%s: %+v, want %s", d.Scheme, d, want)
				case d.Present != (want != absent):
					t.Errorf("%s: present: %t", d.Scheme, d.Present)
				case want != verified && !strings.Contains(d.Problem, want):
					t.Errorf("%s: %q does not say %q", d.Scheme, d.Problem, want)
				case d.Present && !d.Verified && d.Advice == "":
					t.Errorf("%s: %q comes without advice", d.Scheme, d.Problem)
				}
				for _, hidden := range []string{encoded, opaqueSecret, string(key), "message_created"} {
					if strings.Contains(d.Problem+d.Advice, hidden) {
						t.Errorf("%s: %q shows a secret or the body", d.Scheme, d.Problem+d.Advice)
					}
				}
			}
		})
	}
}

// The diagnosis is the receiver's check: where one accepts, both do.
func FuzzDiagnose(f *testing.F) {
	f.Add(standardSecret, "v1,x", "1785232800", `{"id":1}`)
	f.Add(opaqueSecret, "sha256=00", "-", "")
	f.Fuzz(func(t *testing.T, secret, signature, timestamp, body string) {
		s := domain.CredentialFromText(secret)
		for _, header := range []http.Header{
			{"Webhook-Id": {"x"}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {signature}, "X-Chatwoot-Timestamp": {timestamp}, "X-Chatwoot-Signature": {signature}},
			signedRequest(secret, body),
		} {
			found := httpsend.Diagnose(s, header, []byte(body), present)
			standard := httpsend.VerifyStandard(s.StandardKey(), header.Get("Webhook-Id"), header.Get("Webhook-Timestamp"), header.Get("Webhook-Signature"), []byte(body), present)
			chatwoot := httpsend.VerifyChatwoot(secret, header.Get("X-Chatwoot-Timestamp"), header.Get("X-Chatwoot-Signature"), []byte(body), present)
			if found[0].Verified != (standard == nil) || found[1].Verified != (chatwoot == nil) {
				t.Errorf("%+v; the receiver says %v, %v", found, standard, chatwoot)
			}
		}
	})
}
