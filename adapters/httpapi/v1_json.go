package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// v1JSON reads and writes bodies.
var v1JSON = huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: readJSON}

// readJSON is json.Unmarshal without what that passes over: a member that is
// there twice, of which another reader may take the other one, and text that is
// none, or that the database cannot keep. Its errors are for who sent it.
func readJSON(data []byte, into any) error {
	if _, first := into.(*any); first { // huma reads it twice: into an any first
		if err := checkJSON(data); err != nil {
			return err
		}
	}
	err := json.Unmarshal(data, into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: a %s is not taken there", wrong.Field, wrong.Value)
	}
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("is not JSON: %w, at byte %d", syntax, syntax.Offset)
	}
	return err
}

// maxDepth is far more than any body needs.
const maxDepth = 32

// checkJSON says what is wrong with JSON that json.Unmarshal takes. What that
// refuses is left to it.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("is not valid UTF-8")
	}
	type level struct {
		members map[string]bool // nil for an array
		key     bool            // a member's name comes next
	}
	var levels []level
	tokens := json.NewDecoder(bytes.NewReader(data))
	tokens.UseNumber()
	for {
		token, err := tokens.Token()
		if err != nil {
			return nil //nolint:nilerr // it is the end, or what json.Unmarshal says better
		}
		text, isText := token.(string)
		if isText && !keepable(text) {
			return errors.New("has a text with NUL in it, which cannot be kept")
		}
		if n := len(levels); n > 0 && levels[n-1].members != nil && isText && levels[n-1].key {
			if levels[n-1].members[text] {
				return fmt.Errorf("%s: is there twice", text)
			}
			levels[n-1].members[text], levels[n-1].key = true, false
			continue
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{map[string]bool{}, true})
		case json.Delim('['):
			levels = append(levels, level{})
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:len(levels)-1]
			fallthrough
		default:
			if n := len(levels); n > 0 {
				levels[n-1].key = true // behind a value comes a name
			}
		}
		if len(levels) > maxDepth {
			return fmt.Errorf("is nested more than %d deep", maxDepth)
		}
	}
}

// optional is a member that may be left out.
type optional[T any] struct {
	value T
	// given says that it is there, null that it is there as null.
	given, null bool
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *optional[T]) UnmarshalJSON(data []byte) error {
	o.given, o.null = true, string(data) == "null"
	if o.null {
		return nil
	}
	if n, ok := any(&o.value).(*int64); ok {
		return readWhole(data, n)
	}
	return json.Unmarshal(data, &o.value)
}

// readWhole reads a whole number, which JSON may write as 1.0 or 1e3.
func readWhole(data []byte, into *int64) (err error) {
	if *into, err = strconv.ParseInt(string(data), 10, 64); err == nil {
		return nil
	}
	f, err := strconv.ParseFloat(string(data), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > maxWhole {
		return errors.New("a number is not a whole one")
	}
	*into = int64(f)
	return nil
}

// maxWhole is the largest whole number that every reader of JSON keeps.
const maxWhole = 1<<53 - 1

// Schema implements huma.SchemaProvider: that of the value.
func (optional[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}
