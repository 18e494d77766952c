package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/outrider-relay/outrider/domain"
)

// A request's parameters are read as Rails reads them (Action Controller
// overview, "Parameters"): from JSON, from a form or from the query; under the
// key webhook, or flat in JSON, where Rails wraps the names of the model's
// columns itself. Names that are not permitted are passed over, and so are
// permitted ones whose value is of another kind than what is permitted.

// badRequestError refuses what cannot be read.
type badRequestError struct{ reason string }

// Error says what is wrong.
func (e *badRequestError) Error() string { return e.reason }

func badRequest(format string, args ...any) error {
	return &badRequestError{fmt.Sprintf(format, args...)}
}

const wrapper = "webhook"

// columns are those of Chatwoot's table: what is wrapped where a JSON body is
// flat.
var columns = []string{"id", "account_id", "inbox_id", "url", "created_at", "updated_at", "webhook_type", "subscriptions", "name", "secret"}

// given is what a request has under the key webhook: an object, or whatever else
// a client put there.
type given struct{ webhook any }

// readParameters reads the parameters of a request.
func readParameters(r *http.Request) (given, error) {
	media, flags, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var body map[string]any
	var err error
	isJSON := false
	switch media {
	case "application/json", "text/x-json", "application/jsonrequest", "application/vnd.api+json":
		isJSON = true
		body, err = readObject(r)
	case "application/x-www-form-urlencoded", "":
		body, err = readForm(r)
	case "multipart/form-data":
		body, err = readMultipart(r, flags["boundary"])
	}
	if err != nil {
		return given{}, err
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return given{}, badRequest("the query cannot be read: %v", err)
	}
	asked, err := nested(query)
	if err != nil {
		return given{}, err
	}
	if value, ok := body[wrapper]; ok {
		return given{value}, nil
	}
	if value, ok := asked[wrapper]; ok || !isJSON {
		return given{value}, nil
	}
	wrapped := map[string]any{}
	for _, name := range columns {
		if value, ok := body[name]; ok {
			wrapped[name] = value
		}
	}
	return given{wrapped}, nil
}

func readObject(r *http.Request) (map[string]any, error) {
	text, err := readBody(r)
	if err != nil || len(text) == 0 {
		return nil, err
	}
	if !utf8.Valid(text) {
		return nil, badRequest("the body is not valid UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber() // as it was written
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, badRequest("the body is not JSON: %s", jsonReason(err))
	}
	end := decoder.InputOffset()
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, badRequest("the body is not JSON: something follows the first value, which ends at byte %d", end)
	}
	object, _ := value.(map[string]any) // anything else has no names
	return object, nil
}

// jsonReason is what the decoder says, which never is more of the text than a
// character.
func jsonReason(err error) string {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return "it ends too early"
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("%v (byte %d)", err, syntax.Offset)
	}
	return err.Error()
}

func readBody(r *http.Request) ([]byte, error) {
	text, err := io.ReadAll(r.Body)
	if _, ok := errors.AsType[*http.MaxBytesError](err); err != nil && !ok {
		return nil, badRequest("the body did not arrive whole")
	}
	return text, err
}

func readForm(r *http.Request) (map[string]any, error) {
	text, err := readBody(r)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(text))
	if err != nil {
		return nil, badRequest("the body is not a form: %v", err)
	}
	return nested(form)
}

func readMultipart(r *http.Request, boundary string) (map[string]any, error) {
	if boundary == "" {
		return nil, badRequest("the Content-Type multipart/form-data names no boundary")
	}
	if err := r.ParseMultipartForm(maxBody); err != nil { //nolint:gosec // G120: the gate bounds the body
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge
		}
		return nil, badRequest("the body is not a form of several parts")
	}
	return nested(r.MultipartForm.Value)
}

// nested gives of a form what Rack makes of webhook[name] and
// webhook[subscriptions][]. Of a name that stands there again the last counts.
func nested(form url.Values) (map[string]any, error) {
	object := map[string]any{}
	for key, values := range form {
		name, rest, inner := strings.Cut(key, "[")
		if name != wrapper {
			continue
		}
		if slices.ContainsFunc(append(values, key), func(text string) bool { return !utf8.ValidString(text) }) {
			return nil, badRequest("a value of the form is not valid UTF-8")
		}
		if !inner {
			if _, ok := object[wrapper]; !ok {
				object[wrapper] = values[len(values)-1]
			}
			continue
		}
		within, ok := object[wrapper].(map[string]any)
		if !ok {
			within = map[string]any{}
			object[wrapper] = within
		}
		switch name, more, _ := strings.Cut(rest, "]"); more {
		case "":
			within[name] = values[len(values)-1]
		case "[]":
			list := make([]any, len(values))
			for i, value := range values {
				list[i] = value
			}
			within[name] = list
		default:
			within[name] = map[string]any{}
		}
	}
	return object, nil
}

// parameters are what a request says of a webhook, as far as that is permitted:
// nil where it says nothing.
type parameters struct {
	url, name     *string
	inbox         *string
	subscriptions *[]string
}

// permit takes what is permitted. errParamMissing where there is no object, or
// an empty one.
func (g given) permit() (parameters, error) {
	object, _ := g.webhook.(map[string]any)
	if len(object) == 0 {
		return parameters{}, errParamMissing
	}
	var p parameters
	p.url, p.name, p.inbox = scalarOf(object, "url"), scalarOf(object, "name"), scalarOf(object, "inbox_id")
	if list, ok := object[subscriptionsMember].([]any); ok {
		names := make([]string, 0, len(list))
		for _, item := range list {
			name, ok := scalar(item)
			if !ok {
				return p, nil // a list of other things is passed over whole
			}
			if item != nil {
				names = append(names, name)
			}
		}
		p.subscriptions = &names
	}
	return p, nil
}

func scalarOf(object map[string]any, name string) *string {
	value, ok := object[name]
	if !ok {
		return nil
	}
	text, ok := scalar(value)
	if !ok {
		return nil
	}
	return &text
}

// scalar gives the text that a column of text takes of a value. Null is empty.
func scalar(value any) (text string, ok bool) {
	switch value := value.(type) {
	case nil:
		return "", true
	case string:
		return value, true
	case json.Number:
		return value.String(), true
	case bool:
		return strconv.FormatBool(value)[:1], true // "t", "f"
	}
	return "", false
}

// over puts what is said over settings. An inbox that is no number is left to
// problems.
func (p *parameters) over(s domain.Settings) domain.Settings {
	if p.url != nil {
		s.URL = *p.url
	}
	if p.name != nil {
		s.Name = *p.name
	}
	if p.subscriptions != nil {
		s.Subscriptions = *p.subscriptions
	}
	if p.inbox != nil {
		s.InboxID, _ = inboxOf(*p.inbox)
	}
	return s
}

// inboxOf reads the number of an inbox; none is 0, for all.
func inboxOf(text string) (int64, bool) {
	if text == "" {
		return 0, true
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, false
	}
	return id, true
}

// problems are what is wrong that the domain does not know of. had are the
// subscriptions that the webhook has already: who sends back what was listed is
// not refused for names that Chatwoot does not have.
func (p *parameters) problems(had []string) invalidRecord {
	var problems invalidRecord
	if p.subscriptions != nil {
		unknown := func(name string) bool { return !slices.Contains(chatwootEvents, name) && !slices.Contains(had, name) }
		if len(*p.subscriptions) == 0 || slices.ContainsFunc(*p.subscriptions, unknown) {
			problems = append(problems, problem{subscriptionsMember, invalidEvents})
		}
	}
	if p.inbox != nil {
		if _, ok := inboxOf(*p.inbox); !ok {
			problems = append(problems, problem{inboxMember, "Inbox is not a number"})
		}
	}
	return problems
}
