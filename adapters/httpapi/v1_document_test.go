package httpapi_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math"
	"mime"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/adapters/httpapi"
)

var update = flag.Bool("update", false, "write the golden files")

// object is a JSON object.
type object = map[string]any

// v1Document is the API's document as clients get it. Answers are judged by it
// alone, and not by what made it.
type v1Document struct {
	root       object
	operations []*v1DocumentOperation
}

type v1DocumentOperation struct {
	method, path string
	id           string
	object       object
	matches      *regexp.Regexp
}

func readDocument(t *testing.T, text []byte) *v1Document {
	t.Helper()
	d := &v1Document{}
	if err := json.Unmarshal(text, &d.root); err != nil {
		t.Fatal(err)
	}
	placeholder := regexp.MustCompile(`\\\{[^}]*\\\}`)
	paths := of[object](d.root["paths"])
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := of[object](paths[path])
		for _, method := range slices.Sorted(maps.Keys(item)) {
			operation := of[object](item[method])
			d.operations = append(d.operations, &v1DocumentOperation{
				method: strings.ToUpper(method), path: path, id: of[string](operation["operationId"]), object: operation,
				matches: regexp.MustCompile("^" + placeholder.ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "$"),
			})
		}
	}
	return d
}

// of gives the zero value for what is another type.
func of[T any](v any) T {
	value, _ := v.(T)
	return value
}

// find gives the operation of a request, nil where there is none.
func (d *v1Document) find(method, path string) *v1DocumentOperation {
	path, _, _ = strings.Cut(path, "?")
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, o := range d.operations {
		if o.method == method && o.matches.MatchString(path) {
			return o
		}
	}
	return nil
}

// answer gives what an operation answers with a status, nil for nothing.
func (d *v1Document) answer(o *v1DocumentOperation, status string) object {
	answer := of[object](of[object](o.object["responses"])[status])
	if name, ok := strings.CutPrefix(of[string](answer["$ref"]), "#/components/responses/"); ok {
		answer = of[object](of[object](of[object](d.root["components"])["responses"])[name])
	}
	return answer
}

// check says what of an answer is not as the document has it.
func (d *v1Document) check(method, path string, response *http.Response, text []byte) error {
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if response.StatusCode >= 400 && kind != "application/problem+json" {
		return fmt.Errorf("an error of the type %q", kind)
	}
	problem := object{"$ref": "#/components/schemas/Problem"}
	schema := problem
	if o := d.find(method, path); o != nil {
		answer := d.answer(o, fmt.Sprint(response.StatusCode))
		if answer == nil {
			return fmt.Errorf("%s has no answer with this status", o.id)
		}
		content := of[object](answer["content"])
		if len(content) == 0 || method == http.MethodHead {
			if len(text) > 0 {
				return errors.New("a body where there is none in the document")
			}
			return nil
		}
		media := of[object](content[kind])
		if media == nil {
			return fmt.Errorf("the type %q", kind)
		}
		schema = of[object](media["schema"])
		for name := range of[object](answer["headers"]) {
			_, optional := map[string]bool{"Link": true}[name]
			if response.Header.Get(name) == "" && !optional {
				return fmt.Errorf("the header %s is missing", name)
			}
		}
	} else if response.StatusCode < 400 {
		return errors.New("an answer to what is no operation")
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	if err := d.validate(schema, value, "body"); err != nil {
		return err
	}
	if response.StatusCode >= 400 {
		said := of[object](value)
		if of[float64](said["status"]) != float64(response.StatusCode) || of[string](said["detail"]) == "" || of[string](said["title"]) != http.StatusText(response.StatusCode) {
			return errors.New("a problem that says something else than the status")
		}
	}
	return nil
}

// validate judges a value by a schema (JSON Schema 2020-12, as far as the
// document has it; what it does not know is an error).
func (d *v1Document) validate(schema object, value any, at string) error {
	known := map[string]bool{}
	get := func(name string) (any, bool) {
		known[name] = true
		v, ok := schema[name]
		return v, ok
	}
	for _, note := range []string{"description", "examples", "default", "title"} {
		known[note] = true
	}
	if ref, ok := get("$ref"); ok {
		name := strings.TrimPrefix(of[string](ref), "#/components/schemas/")
		target := of[object](of[object](of[object](d.root["components"])["schemas"])[name])
		if target == nil {
			return fmt.Errorf("%s: there is no schema %v", at, ref)
		}
		return d.validate(target, value, at)
	}
	if kinds, ok := get("type"); ok {
		list := of[[]any](kinds)
		if one, ok := kinds.(string); ok {
			list = []any{one}
		}
		if !slices.ContainsFunc(list, func(kind any) bool { return isKind(of[string](kind), value) }) {
			return fmt.Errorf("%s: %v is no %v", at, value, kinds)
		}
	}
	if enum, ok := get("enum"); ok && value != nil && !slices.Contains(of[[]any](enum), value) {
		return fmt.Errorf("%s: %v is none of %v", at, value, enum)
	}
	bound := func(name string, size float64, ok func(size, bound float64) bool) error {
		if limit, given := get(name); given && !ok(size, of[float64](limit)) {
			return fmt.Errorf("%s: %v is not within %s %v", at, value, name, limit)
		}
		return nil
	}
	least := func(size, bound float64) bool { return size >= bound }
	most := func(size, bound float64) bool { return size <= bound }
	var number, length, items float64
	switch v := value.(type) {
	case float64:
		number = v
	case string:
		length = float64(utf8.RuneCountInString(v))
	case []any:
		items = float64(len(v))
	}
	var errs []error
	if _, ok := value.(float64); ok {
		errs = append(errs, bound("minimum", number, least), bound("maximum", number, most), bound("exclusiveMinimum", number, func(s, b float64) bool { return s > b }))
	}
	if text, ok := value.(string); ok {
		errs = append(errs, bound("minLength", length, least), bound("maxLength", length, most))
		format, _ := get("format")
		switch format {
		case "date-time":
			_, err := time.Parse(time.RFC3339, text)
			errs = append(errs, err)
		case "uuid":
			_, err := uuid.Parse(text)
			errs = append(errs, err)
		case "uri", nil:
		default:
			errs = append(errs, fmt.Errorf("%s: the format %v is not judged", at, format))
		}
	}
	if list, ok := value.([]any); ok {
		errs = append(errs, bound("minItems", items, least), bound("maxItems", items, most))
		each, _ := get("items")
		for i, item := range list {
			errs = append(errs, d.validate(of[object](each), item, fmt.Sprintf("%s[%d]", at, i)))
		}
	}
	if members, ok := value.(object); ok {
		properties, _ := get("properties")
		required, _ := get("required")
		for _, name := range of[[]any](required) {
			if _, there := members[of[string](name)]; !there {
				errs = append(errs, fmt.Errorf("%s: %v is missing", at, name))
			}
		}
		more, _ := get("additionalProperties")
		for name, member := range members {
			property, known := of[object](properties)[name]
			switch schema := of[object](more); {
			case known:
				errs = append(errs, d.validate(of[object](property), member, at+"."+name))
			case schema != nil:
				errs = append(errs, d.validate(schema, member, at+"."+name))
			case properties != nil: // others may come one day, and have not
				errs = append(errs, fmt.Errorf("%s: %s is not in the document", at, name))
			}
		}
	}
	for _, name := range []string{"minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "format", "minItems", "maxItems", "items", "properties", "required", "additionalProperties"} {
		known[name] = true
	}
	for name := range schema {
		if !known[name] {
			errs = append(errs, fmt.Errorf("%s: %s is not judged", at, name))
		}
	}
	return errors.Join(errs...)
}

func isKind(kind string, value any) bool {
	switch v := value.(type) {
	case nil:
		return kind == "null"
	case bool:
		return kind == "boolean"
	case string:
		return kind == "string"
	case []any:
		return kind == "array"
	case object:
		return kind == "object"
	case float64:
		return kind == "number" || kind == "integer" && v == math.Trunc(v)
	}
	return false
}

// TestV1Document compares the document with the one that is kept: a change of
// the contract is seen where it is made. go test -run TestV1Document -update
// writes it.
func TestV1Document(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	response, text := r.send(http.MethodGet, v1Base+"/openapi.json", "", "", nil)
	if kind := response.Header.Get("Content-Type"); kind != "application/openapi+json" {
		t.Errorf("its type is %q", kind)
	}
	const golden = "testdata/v1_openapi.json"
	if *update {
		if err := os.WriteFile(golden, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, text) {
		t.Errorf("the document is another one than %s has: where that is meant, write it with -update, and say so in CHANGELOG.md", golden)
	}
	etag := response.Header.Get("ETag")
	if again, text := r.send(http.MethodGet, v1Base+"/openapi.json", "", "", http.Header{"If-None-Match": {etag}}); again.StatusCode != http.StatusNotModified || len(text) > 0 {
		t.Errorf("asked for again: %s", again.Status)
	}
	yaml, text := r.send(http.MethodGet, v1Base+"/openapi.yaml", "", "", nil)
	if yaml.StatusCode != http.StatusOK || !strings.HasPrefix(string(text), "openapi: 3.1.0\n") && !strings.Contains(string(text), "\nopenapi: 3.1.0\n") {
		t.Errorf("in YAML: %s\n%.200s", yaml.Status, text)
	}
}

// TestV1RoutesAreInTheDocument, each, and nothing else is; and each operation
// says what it needs to say.
func TestV1RoutesAreInTheDocument(t *testing.T) {
	t.Parallel()
	r := newV1Rig(t)
	documents := []string{"GET " + v1Base + "/openapi.json", "GET " + v1Base + "/openapi.yaml"}
	var routed []string
	for _, pattern := range httpapi.New(httpapi.Config{}).Routes() {
		if strings.Contains(pattern, v1Base) && !slices.Contains(documents, pattern) {
			routed = append(routed, pattern)
		}
	}
	var documented []string
	ids := map[string]bool{}
	for _, o := range r.document.operations {
		documented = append(documented, o.method+" "+v1Base+o.path)
		if o.id == "" || ids[o.id] {
			t.Errorf("%s %s has the id %q", o.method, o.path, o.id)
		}
		ids[o.id] = true
		if of[string](o.object["summary"]) == "" || of[string](o.object["description"]) == "" || len(of[[]any](o.object["tags"])) != 1 {
			t.Errorf("%s has no summary, description or tag", o.id)
		}
		for _, parameter := range of[[]any](o.object["parameters"]) {
			p := of[object](parameter)
			if of[string](p["description"]) == "" || p["example"] == nil {
				t.Errorf("%s: the parameter %v has no description or example", o.id, p["name"])
			}
		}
		for _, status := range []string{"400", "401", "403", "404", "405", "422", "429", "500", "503"} {
			answer := r.document.answer(o, status)
			if of[object](answer["content"])["application/problem+json"] == nil || of[string](answer["description"]) == "" {
				t.Errorf("%s has no answer %s", o.id, status)
			}
		}
		if o.object["requestBody"] != nil {
			body := of[object](of[object](of[object](of[object](o.object["requestBody"])["content"])["application/json"])["schema"])
			name := strings.TrimPrefix(of[string](body["$ref"]), "#/components/schemas/")
			if schema := of[object](of[object](of[object](r.document.root["components"])["schemas"])[name]); schema == nil || of[bool](schema["additionalProperties"]) || schema["additionalProperties"] == nil {
				t.Errorf("%s takes members that nobody knows", o.id)
			}
			for _, status := range []string{"413", "415"} {
				if of[object](o.object["responses"])[status] == nil {
					t.Errorf("%s takes a body, and has no answer %s", o.id, status)
				}
			}
		}
	}
	slices.Sort(routed)
	slices.Sort(documented)
	if !slices.Equal(routed, documented) {
		t.Errorf("routes are\n%s\nthe document has\n%s", strings.Join(routed, "\n"), strings.Join(documented, "\n"))
	}
	for name, schema := range of[object](of[object](r.document.root["components"])["schemas"]) {
		for member, property := range of[object](of[object](schema)["properties"]) {
			if of[string](of[object](property)["description"]) == "" {
				t.Errorf("%s.%s has no description", name, member)
			}
		}
	}
}
