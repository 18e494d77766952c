package domain

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"unique"
)

// Header is one line that a webhook's owner adds to the header of each POST.
// Its value is a secret, as a token in it is.
type Header struct {
	// Name is a token of RFC 9110, section 5.6.2, up to 100 characters, and none
	// that Outrider or HTTP sends itself. Names differ by more than their case.
	Name string
	// Value is printable ASCII, up to 4,096 characters. What the zero value
	// means is the command's to say.
	Value Secret
}

// NewHeader gives a header; the value is not judged yet, and "" is none.
func NewHeader(name, value string) Header { return Header{name, secretOf(value)} }

// The limits of a webhook's headers, in bytes. All of them, with those that
// Outrider sends, stay below what receivers take: Node.js takes 16 KiB.
const (
	maxHeaders     = 20
	maxHeaderName  = 100
	maxHeaderValue = 4 << 10
	maxHeaderBytes = 8 << 10
)

// authorizationHeader is the one that a user and password in a URL become.
const authorizationHeader = "authorization"

// ownHeaders are those that Outrider or HTTP sends, or that are for one
// connection alone (RFC 9110, section 7.6.1), in lower case; ownPrefixes are how
// more of them begin. content- tells of the body, proxy- is a proxy's.
var (
	ownHeaders = map[string]bool{
		"accept": true, "accept-encoding": true, "connection": true, "expect": true, "host": true, "http2-settings": true,
		"keep-alive": true, "te": true, "traceparent": true, "tracestate": true, "trailer": true, "transfer-encoding": true,
		"upgrade": true, "user-agent": true,
	}
	ownPrefixes = []string{"content-", "outrider-", "proxy-", "webhook-", "x-chatwoot-"}
)

// Headers are what a webhook's owner adds to the header of each POST, by name.
// They print as a mask, as secrets do; All and Text are the ways out. Headers
// of the same lines are equal.
type Headers struct {
	// text has a line for each, sorted. It is a handle for the reason that a
	// Secret's is.
	text unique.Handle[string]
}

// HeadersFromText restores headers from where they are kept.
func HeadersFromText(text string) Headers {
	if text == "" {
		return Headers{}
	}
	return Headers{unique.Make(text)}
}

// Text gives the lines as they are kept, values included: "Name: value" and a
// line feed for each, "" for none.
func (h Headers) Text() string {
	if h == (Headers{}) {
		return ""
	}
	return h.text.Value()
}

// All gives the names, as their owner spelled them, and the values, sorted by
// name whatever its case.
func (h Headers) All() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		for line := range strings.Lines(h.Text()) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			if !yield(name, value) {
				return
			}
		}
	}
}

// Has reports whether there is a header of this name, whatever its case.
func (h Headers) Has(name string) bool {
	for other := range h.All() {
		if strings.EqualFold(name, other) {
			return true
		}
	}
	return false
}

// with gives the headers after changes, of which one without a value removes
// its name. credential is the user and password that come with the changes:
// they take the place of an Authorization that was there, and refuse one that is
// new. err is what is wrong with other settings, to which it adds.
func (h Headers) with(changes []Header, credential Secret, err error) (Headers, error) {
	lines := map[string]Header{}
	for name, value := range h.All() {
		lines[strings.ToLower(name)] = Header{name, secretOf(value)}
	}
	if !credential.IsZero() {
		delete(lines, authorizationHeader)
	}
	var problems []string
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Sprintf("headers: "+format, args...))
	}
	given := map[string]bool{}
	for _, c := range changes {
		name := strings.ToLower(c.Name)
		switch value := c.Value.Reveal(); {
		case !token(c.Name): // not quoted: what stands in the wrong place may be a secret
			problem("a name is not one: it has 1 to %d letters, digits, or characters of !#$%%&'*+-.^_`|~", maxHeaderName)
		case given[name]:
			problem("%s is given twice", c.Name)
		case value == "":
			delete(lines, name)
		case ownHeaders[name] || slices.ContainsFunc(ownPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }):
			problem("%s is sent by Outrider or by HTTP itself", c.Name)
		case len(value) > maxHeaderValue:
			problem("the value of %s has %d characters; %d are accepted", c.Name, len(value), maxHeaderValue)
		case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) || strings.TrimSpace(value) != value:
			problem("the value of %s is not printable ASCII without spaces around it", c.Name)
		case name == authorizationHeader && !credential.IsZero():
			problem("%s is given, and a user and password in the URL, which are sent as that too: leave one out", c.Name)
		default:
			lines[name] = c
		}
		given[name] = true
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		text.WriteString(lines[name].Name + ": " + lines[name].Value.Reveal() + "\n")
	}
	if len(lines) > maxHeaders {
		problem("%d are too many; %d are accepted", len(lines), maxHeaders)
	}
	if text.Len() > maxHeaderBytes {
		problem("together they have %d characters; %d are accepted", text.Len(), maxHeaderBytes)
	}
	if err := withProblems(err, problems); err != nil {
		return Headers{}, err
	}
	return HeadersFromText(text.String()), nil
}

// toward gives the changes that bring the headers in line with a description of
// all of them, nil for none. One that is described without a value was withheld:
// it must be there.
func (h Headers) toward(described []Header) (changes []Header, problems []string) {
	if described == nil {
		return nil, nil
	}
	for _, d := range described {
		switch {
		case !d.Value.IsZero() || !token(d.Name):
			changes = append(changes, d)
		case !h.Has(d.Name):
			problems = append(problems, fmt.Sprintf("headers: the value of %s was left out when it was exported; write it, or export it with its secrets", d.Name))
		}
	}
	for name := range h.All() {
		if !slices.ContainsFunc(described, func(d Header) bool { return strings.EqualFold(d.Name, name) }) {
			changes = append(changes, Header{Name: name})
		}
	}
	return changes, problems
}

// withProblems adds to what is wrong with settings.
func withProblems(err error, more []string) error {
	if len(more) == 0 {
		return err
	}
	invalid, ok := errors.AsType[*InvalidSettingsError](err)
	switch {
	case ok:
		more = slices.Concat(invalid.Problems, more)
	case err != nil:
		return err
	}
	return &InvalidSettingsError{more}
}

// token reports whether the text is a header's name (RFC 9110, section 5.6.2)
// of a length that is accepted.
func token(text string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return text != "" && len(text) <= maxHeaderName
}

// Format prints the mask for every verb.
func (h Headers) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(mask)) }

// LogValue logs the mask.
func (h Headers) LogValue() slog.Value { return slog.StringValue(mask) }

// MarshalText encodes the mask, so that no JSON shows a value by accident.
func (h Headers) MarshalText() ([]byte, error) { return []byte(mask), nil }
