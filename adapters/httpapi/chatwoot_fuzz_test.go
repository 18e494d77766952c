package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/adapters/httpapi"
)

// FuzzChatwootParameters: whatever a client sends is read or refused, never
// more; what is read can be kept; and a flat object says the same as a wrapped
// one.
func FuzzChatwootParameters(f *testing.F) {
	for _, body := range []string{
		"", "{}", "null", "[]", `"x"`, " ", "{", `{"webhook":{}}`, `{"webhook":null}`, `{"webhook":[1]}`, `{"webhook":{"url":"https://a.example","subscriptions":["message_created",null]}}`,
		`{"url":"https://a.example","name":null,"inbox_id":12,"subscriptions":[]}`, `{"url":["x"],"subscriptions":[{"a":1}]}`, `{"name":1e400,"inbox_id":true}`, `{"name":"\ud800"}`, `{} {}`, "\xff",
		`{"url":"a","url":"b","webhook":{"url":"c"}}`, strings.Repeat("[", 20_000),
		"webhook[url]=x&webhook[subscriptions][]=a&webhook[subscriptions][]=b", "webhook=x&webhook[url]=y", "webhook[]=x", "webhook[a][b]=x", "webhook[url=x", "webhook[name]=%ff", "%zz", "a=b;c",
		part("webhook[url]", "x") + part("webhook[subscriptions][]", "a") + "--x--\r\n", "--x\r\n",
	} {
		for _, form := range []string{"application/json", formType, partType, "multipart/form-data", "text/plain", "", ";", "application/json; charset=x; charset=y"} {
			f.Add(form, "", body)
			f.Add(form, body, "")
		}
	}
	read := func(t *testing.T, form, query, body string) (p httpapi.Parameters, err error) {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", form)
		r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, 1<<16)
		p, refused, err := httpapi.ReadParameters(r)
		if err != nil && !refused {
			t.Fatalf("the error is %v", err)
		}
		return p, err
	}
	f.Fuzz(func(t *testing.T, form, query, body string) {
		p, err := read(t, form, query, body)
		if err != nil {
			return
		}
		var texts []string
		for _, text := range []*string{p.URL, p.Name, p.Inbox} {
			if text != nil {
				texts = append(texts, *text)
			}
		}
		if p.Subscriptions != nil {
			texts = append(texts, *p.Subscriptions...)
		}
		for _, text := range texts {
			if !utf8.ValidString(text) {
				t.Fatalf("%q is read", text)
			}
		}
		var flat map[string]json.RawMessage
		if form != "application/json" || query != "" || json.Unmarshal([]byte(body), &flat) != nil || flat["webhook"] != nil {
			return
		}
		wrapped, err := read(t, form, "", `{"webhook":`+body+`}`)
		if err != nil || !reflect.DeepEqual(wrapped, p) {
			t.Fatalf("%s gives %+v, and wrapped %+v, %v", body, p, wrapped, err)
		}
	})
}
