package domain_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

// withHeaders begins a webhook that has headers, and no user and password.
func withHeaders(lines string) domain.WebhookRegistered {
	return domain.WebhookRegistered{Settings: settings, Headers: domain.HeadersFromText(lines), Secret: secretA}
}

func TestHeadersOfAWebhook(t *testing.T) {
	t.Parallel()
	headers := func(pairs ...string) (headers []domain.Header) {
		for pair := range slices.Chunk(pairs, 2) {
			headers = append(headers, domain.NewHeader(pair[0], pair[1]))
		}
		return headers
	}
	withUser := with(func(s *domain.Settings) { s.URL = "https://user:" + password + "@example.com/hook" })
	updated := func(lines string) []domain.WebhookEvent {
		return changes(domain.WebhookUpdated{Settings: settings, Headers: domain.HeadersFromText(lines)})
	}
	for _, c := range []struct {
		name  string
		given []domain.WebhookEvent
		when  domain.WebhookCommand
		then  []domain.WebhookEvent
		err   string
	}{
		{
			name: "SortedByName",
			when: domain.RegisterWebhook{Settings: settings, Headers: headers("x-b", "2: two", "X-A", "1", "Authorization", "Bearer t"), Secret: secretA},
			then: changes(withHeaders("Authorization: Bearer t\nX-A: 1\nx-b: 2: two\n")),
		},
		{
			name: "KeptByAnUpdate", given: changes(withHeaders("X-A: 1\n")),
			when: domain.UpdateWebhook{Settings: with(func(s *domain.Settings) { s.Name = "ERP" })},
			then: changes(domain.WebhookUpdated{Settings: with(func(s *domain.Settings) { s.Name = "ERP" }), Headers: domain.HeadersFromText("X-A: 1\n")}),
		},
		{name: "OneMore", given: changes(withHeaders("X-A: 1\n")), when: domain.UpdateWebhook{Settings: settings, Headers: headers("X-B", "2")}, then: updated("X-A: 1\nX-B: 2\n")},
		{name: "Replaced", given: changes(withHeaders("X-A: 1\n")), when: domain.UpdateWebhook{Settings: settings, Headers: headers("X-A", "2")}, then: updated("X-A: 2\n")},
		{name: "SpelledAnew", given: changes(withHeaders("X-A: 1\n")), when: domain.UpdateWebhook{Settings: settings, Headers: headers("x-a", "1")}, then: updated("x-a: 1\n")},
		{name: "Removed", given: changes(withHeaders("X-A: 1\nX-B: 2\n")), when: domain.UpdateWebhook{Settings: settings, Headers: headers("x-a", "")}, then: updated("X-B: 2\n")},
		{name: "TheLastOneRemoved", given: changes(withHeaders("X-A: 1\n")), when: domain.UpdateWebhook{Settings: settings, Headers: headers("X-A", "")}, then: updated("")},
		{name: "TheSameAgain", given: changes(withHeaders("X-A: 1\n")), when: domain.UpdateWebhook{Settings: settings, Headers: headers("X-A", "1")}},
		{name: "NoneToRemove", given: changes(withHeaders("X-A: 1\n")), when: domain.UpdateWebhook{Settings: settings, Headers: headers("X-B", "")}},
		{
			name: "AuthorizationTakesThePlaceOfTheUser", given: changes(registered),
			when: domain.UpdateWebhook{Settings: settings, Headers: headers("authorization", "Bearer t")}, then: updated("authorization: Bearer t\n"),
		},
		{
			name: "AnotherHeaderLeavesTheUser", given: changes(registered),
			when: domain.UpdateWebhook{Settings: settings, Headers: headers("X-A", "1")},
			then: changes(domain.WebhookUpdated{Settings: settings, Credential: credential, Headers: domain.HeadersFromText("X-A: 1\n")}),
		},
		{
			name: "TheUserTakesThePlaceOfAuthorization", given: changes(withHeaders("Authorization: Bearer t\nX-A: 1\n")),
			when: domain.UpdateWebhook{Settings: withUser},
			then: changes(domain.WebhookUpdated{Settings: settings, Credential: credential, Headers: domain.HeadersFromText("X-A: 1\n")}),
		},
		{name: "BothAtOnce", when: domain.RegisterWebhook{Settings: withUser, Headers: headers("Authorization", "Bearer t")}, err: "leave one out"},
		{name: "BothAtOnceInAnUpdate", given: changes(registered), when: domain.UpdateWebhook{Settings: withUser, Headers: headers("AUTHORIZATION", "Bearer t")}, err: "leave one out"},
		{
			name: "WithAllElseThatIsWrong",
			when: domain.RegisterWebhook{Settings: with(func(s *domain.Settings) { s.InboxID = -1 }), Headers: headers("Host", "x", "a b", "c")},
			err:  "inbox_id: -1 is negative; headers: Host is sent by Outrider or by HTTP itself; headers: a name is not one",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.DecideWebhook(foldWebhook(c.given...), c.when)
			if (err == nil) != (c.err == "") || err != nil && (!errors.Is(err, domain.ErrInvalidSettings) || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if !reflect.DeepEqual(got, c.then) {
				t.Errorf("got  %+v\nwant %+v", got, c.then)
			}
			if after := foldWebhook(append(c.given, got...)...); !after.Credential.IsZero() && after.Headers.Has("Authorization") {
				t.Error("there are two to be sent as Authorization")
			}
		})
	}
}

// No problem quotes a value, nor what stands where a name should.
func TestHeaderBounds(t *testing.T) {
	t.Parallel()
	const value = "hush-hush"
	long := func(n int) string { return strings.Repeat("v", n) }
	many := func(n, size int) (headers []domain.Header) {
		for i := range n {
			headers = append(headers, domain.NewHeader(fmt.Sprintf("X-%03d", i), long(size)))
		}
		return headers
	}
	one := func(name, value string) []domain.Header { return []domain.Header{domain.NewHeader(name, value)} }
	for _, c := range []struct {
		name    string
		headers []domain.Header
		problem string // "" where it is accepted
	}{
		{"Token", one("!#$%&'*+-.^_`|~aZ09", value), ""},
		{"LongestName", one(long(100), value), ""},
		{"NameTooLong", one(long(101), value), "a name is not one"},
		{"NoName", one("", value), "a name is not one"},
		{"NameWithSpace", one("Bearer "+value, value), "a name is not one"},
		{"NameWithLineBreak", one("X-A\r\nX-B", value), "a name is not one"},
		{"NameWithColon", one("X:A", value), "a name is not one"},
		{"NameNotASCII", one("X-Größe", value), "a name is not one"},
		{"AllPrintable", one("X-A", `!"#$%&'()*+,-./09:;<=>?@AZ[\]^_`+"`az{|}~"), ""},
		{"SpaceWithin", one("X-A", "a b"), ""},
		{"ValueWithLineBreak", one("X-A", value+"\r\nX-B: 1"), "the value of X-A is not printable"},
		{"ValueWithLineFeed", one("X-A", value+"\n"), "the value of X-A is not printable"},
		{"ValueWithNUL", one("X-A", value+"\x00"), "the value of X-A is not printable"},
		{"ValueWithTab", one("X-A", value+"\tb"), "the value of X-A is not printable"},
		{"ValueNotASCII", one("X-A", value+"ü"), "the value of X-A is not printable"},
		{"ValueNotUTF8", one("X-A", value+"\xff"), "the value of X-A is not printable"},
		{"ValueWithSpaceAround", one("X-A", " "+value), "the value of X-A is not printable"},
		{"LongestValue", one("X-A", long(4096)), ""},
		{"ValueTooLong", one("X-A", long(4097)), "the value of X-A has 4097 characters; 4096 are accepted"},
		{"Most", many(20, 10), ""},
		{"TooMany", many(21, 10), "21 are too many; 20 are accepted"},
		{"TogetherTooLong", many(3, 4000), "together they have 12024 characters; 8192 are accepted"},
		{"Twice", []domain.Header{domain.NewHeader("X-A", value), domain.NewHeader("x-a", "2")}, "x-a is given twice"},
		{"SetAndRemoved", []domain.Header{domain.NewHeader("X-A", value), {Name: "X-A"}}, "X-A is given twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: settings, Headers: c.headers})
			if c.problem == "" {
				if err != nil || len(got) != 1 {
					t.Fatalf("got %v, %v", got, err)
				}
				kept := 0
				for name, value := range foldWebhook(got...).Headers.All() {
					for _, given := range c.headers {
						if given.Name == name && given.Value.Reveal() == value {
							kept++
						}
					}
				}
				if kept != len(c.headers) {
					t.Errorf("%d of %d headers are kept as they were given", kept, len(c.headers))
				}
				return
			}
			var invalid *domain.InvalidSettingsError
			if !errors.As(err, &invalid) || len(invalid.Problems) != 1 || !strings.HasPrefix(invalid.Problems[0], "headers: "+c.problem) {
				t.Fatalf("got %v, %v; want %q", got, err, c.problem)
			}
			if strings.Contains(err.Error(), value) {
				t.Errorf("the problem quotes the value: %v", err)
			}
		})
	}
}

// What Outrider or HTTP sends is nobody else's, in whatever case.
func TestHeadersThatAreNotFree(t *testing.T) {
	t.Parallel()
	judged := func(name string) error {
		_, err := domain.DecideWebhook(domain.Webhook{}, domain.RegisterWebhook{Settings: settings, Headers: []domain.Header{domain.NewHeader(name, "v")}})
		return err
	}
	for _, name := range []string{
		"Host", "Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Connection", "Keep-Alive", "TE", "Trailer", "Upgrade",
		"HTTP2-Settings", "Expect", "User-Agent", "Accept", "Accept-Encoding", "Proxy-Authorization", "Proxy-Connection", "webhook-id", "webhook-anything",
		"X-Chatwoot-Signature", "Outrider-Replay", "traceparent", "tracestate",
	} {
		for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if err := judged(spelled); !errors.Is(err, domain.ErrInvalidSettings) || !strings.Contains(err.Error(), spelled+" is sent by") {
				t.Errorf("%s: %v", spelled, err)
			}
		}
	}
	for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "X-Webhook-Id", "Accept-Language", "Contents", "baggage"} {
		if err := judged(name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
