package domain

import (
	"encoding/json"
	"testing"

	"github.com/tidwall/gjson"
)

// A walk finds what a parser finds: the same keys with the same values, in the
// same order.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a":{"b":"}"},"c":[1,"]",{"d":null}]}`, `{"\u0061":"\\","b":"\"","c":"\\\""}`,
		`{"a":-1.5e3 , "b" : true,"c":"","a":[]}`, "{\n\t\"a\"\r: {\"x\":[[[]]]}\n}", `{"a":"\\\\\\"}`, `{"":""}`,
		`{"id":1,"id":2}`, `{"conversation":{"id":"7"},"conversation":{"id":8}}`, `{"conversation":[{"id":1}]}`, `{"working_hours":[{"inbox_id":3},{"inbox_id":4}]}`,
		`{"working_hours":{"0":{"inbox_id":5}}}`, `{"working_hours":[]}`, `{"\u0069d":9}`,
		`[1]`, `"a"`, `{"a"`, `{"a":`, `{"a":"`, `{"a":1,`, `{"a":[}`, `{`, ``, `{"a":}`, `{"a":1 2}`, `{"\`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		type member struct{ key, value string }
		var walked []member
		members(object, func(key, value []byte) bool {
			if len(key) < 2 || len(value) == 0 {
				t.Fatalf("%q: key %q, value %q", object, key, value)
			}
			walked = append(walked, member{string(key), string(value)})
			return true
		})
		if !json.Valid(object) {
			return // it must come to an end, and did
		}
		var parsed []member
		if root := gjson.ParseBytes(object); root.IsObject() {
			root.ForEach(func(key, value gjson.Result) bool {
				parsed = append(parsed, member{key.Raw, value.Raw})
				if !isKey([]byte(key.Raw), key.String()) || isKey([]byte(key.Raw), key.String()+"x") {
					t.Errorf("%q: isKey of %s is wrong", object, key.Raw)
				}
				return true
			})
		}
		for _, path := range []string{"id", "conversation.id", "working_hours.0.inbox_id"} {
			if got, want := string(lookup(object, path)), gjson.GetBytes(object, path).Raw; got != want {
				t.Errorf("%q: at %s is %q, parsed %q", object, path, got, want)
			}
		}
		if len(walked) != len(parsed) {
			t.Fatalf("%q: walked over %q, parsed %q", object, walked, parsed)
		}
		for i := range parsed {
			if walked[i] != parsed[i] {
				t.Errorf("%q: member %d is %q, parsed %q", object, i, walked[i], parsed[i])
			}
		}
	})
}
