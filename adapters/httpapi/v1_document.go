package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// The names of the ways to send a token.
const (
	v1Bearer = "bearer"
	v1Header = "api_access_token"
)

const v1About = `What ` + "`outrider`" + ` does with webhooks, the history of events, and replays, for programs: with the same
names as its command line, and the views of the schema audit, have.

A token is for one account or for all, and has a role: viewer, operator or administrator. What it does not see is
not there: 404. What it sees and may not do is 403.

Errors are problem details (RFC 9457), and name the field and the reason. What is not known, a member of a body or a
parameter of a query, is an error. Lists come in pages: next_cursor, and the header Link, lead to the next one.
Of what is listed there may be more members and more words one day; what is there stays as it is.`

// v1Configuration is how huma is set up: no pages of its own, which load scripts
// from elsewhere, and no formats but JSON.
func v1Configuration() huma.Config {
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Outrider", Version: "1", Description: v1About},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", v1SchemaName),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					v1Bearer: {Type: "http", Scheme: "bearer", Description: "A token of outrider token create: Authorization: Bearer outrider_…"},
					v1Header: {Type: "apiKey", In: "header", Name: "api_access_token", Description: "The same token, where Chatwoot's clients send it."},
				},
			},
			Tags: []*huma.Tag{
				{Name: tagWebhooks, Description: "The URLs that an account registered, with their settings."},
				{Name: tagActions, Description: "What can be done with a webhook."},
				{Name: tagHistory, Description: "What became of events: deliveries, attempts, and changes of webhooks."},
				{Name: tagHealth, Description: "How webhooks and relays do."},
				{Name: tagReplays, Description: "Old events, sent again by a recorded plan."},
			},
		},
		Formats:       map[string]huma.Format{"application/json": v1JSON, "json": v1JSON},
		DefaultFormat: "application/json",
	}
	config.AllowAdditionalPropertiesByDefault = true // of answers, which may have more one day; bodies of requests say no
	return config
}

// v1SchemaName gives a schema the name of its type without this API's mark.
func v1SchemaName(t reflect.Type, hint string) string {
	return strings.ReplaceAll(huma.DefaultSchemaNamer(t, hint), "V1", "")
}

// statusWords say what the answers with a status are.
var statusWords = map[int]string{
	http.StatusNotModified:           "It is what If-None-Match says is known already.",
	http.StatusBadRequest:            "The query, or the body, cannot be read.",
	http.StatusUnauthorized:          "There is no token, or one that lets nobody in.",
	http.StatusForbidden:             "The token's role is too small, or it is for one account alone.",
	http.StatusNotFound:              "It is not there, or the token does not see it.",
	http.StatusMethodNotAllowed:      "There is no such method of this path: Allow has those there are.",
	http.StatusConflict:              "As things are it cannot be done.",
	http.StatusPreconditionFailed:    "It was changed since it was read: If-Match names another version.",
	http.StatusRequestEntityTooLarge: "The body is larger than 1 MiB.",
	http.StatusUnsupportedMediaType:  "The body is not application/json.",
	http.StatusUnprocessableEntity:   "A field is wrong, or not known: errors names each.",
	http.StatusPreconditionRequired:  "If-Match is missing.",
	http.StatusTooManyRequests:       "The token asks too often, or from its address came too many wrong ones.",
	http.StatusInternalServerError:   "Something went wrong inside: the log of outrider web says what, under instance.",
	http.StatusServiceUnavailable:    "The database cannot be used now.",
}

// statusHeaders are the headers of the answers with a status.
var statusHeaders = map[int]map[string]string{
	http.StatusUnauthorized:       {"WWW-Authenticate": "How to send a token."},
	http.StatusMethodNotAllowed:   {"Allow": "The methods that there are."},
	http.StatusTooManyRequests:    {"Retry-After": "In how many seconds to try again."},
	http.StatusServiceUnavailable: {"Retry-After": "In how many seconds to try again."},
	http.StatusNotModified:        {"ETag": "The same as in If-None-Match."},
}

// describe says of each answer what it is. Errors are the same everywhere, and
// said once.
func describe(document *huma.OpenAPI) {
	document.Components.Responses = map[string]*huma.Response{}
	for _, item := range document.Paths {
		for _, operation := range []*huma.Operation{item.Get, item.Post, item.Patch, item.Delete} {
			if operation == nil {
				continue
			}
			for status, response := range operation.Responses {
				if code, _ := strconv.Atoi(status); code >= http.StatusBadRequest {
					name := strings.ReplaceAll(http.StatusText(code), " ", "")
					document.Components.Responses[name] = described(code, response)
					operation.Responses[status] = &huma.Response{Ref: "#/components/responses/" + name}
				} else if code == http.StatusNotModified {
					operation.Responses[status] = described(code, &huma.Response{})
				}
			}
			for _, parameter := range operation.Parameters {
				s := parameter.Schema
				parameter.Example, s.Examples, s.Description = s.Examples[0], nil, "" // the parameter has them
				if parameter.Name == "If-Match" && operation.Responses[strconv.Itoa(http.StatusPreconditionRequired)] != nil {
					parameter.Required = true
				}
			}
		}
	}
}

// described is an answer with its words and headers.
func described(code int, response *huma.Response) *huma.Response {
	response.Description = statusWords[code]
	for name, words := range statusHeaders[code] {
		if response.Headers == nil {
			response.Headers = map[string]*huma.Header{}
		}
		response.Headers[name] = &huma.Header{Description: words, Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return response
}

// addDocument adds what describes the API. Everybody may read it: it is no
// secret, and the same everywhere.
func (v *v1) addDocument() {
	document := v.api.OpenAPI()
	describe(document)
	compact, err := json.Marshal(document)
	if err != nil {
		panic("the API's document cannot be written: " + err.Error()) // it is the same each time: any test of the API fails
	}
	var indented bytes.Buffer
	_ = json.Indent(&indented, compact, "", "  ") // it was just written
	indented.WriteByte('\n')
	yaml, err := document.YAML()
	if err != nil {
		panic("the API's document cannot be written: " + err.Error())
	}
	texts := map[string][]byte{"json": indented.Bytes(), "yaml": yaml}
	for _, format := range slices.Sorted(maps.Keys(texts)) {
		text := texts[format]
		digest := sha256.Sum256(text)
		etag := `"` + hex.EncodeToString(digest[:8]) + `"`
		v.routes.Handle("GET "+v1Base+"/openapi."+format, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			header := w.Header()
			header.Set("Content-Type", "application/openapi+"+format)
			header.Set("X-Content-Type-Options", "nosniff")
			header.Set("Cache-Control", "no-cache")
			header.Set("ETag", etag)
			if (IfNoneMatch{r.Header.Get("If-None-Match")}).met(etag) {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			_, _ = w.Write(text) // the client may have left
		}))
	}
}
