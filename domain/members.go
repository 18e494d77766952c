package domain

import (
	"bytes"
	"strings"

	"github.com/tidwall/gjson"
)

// members calls visit with the key, quotes included, and the value of each
// member of a JSON object, until that returns false. It is the one walk over a
// payload, and looks at little of it: strings are left by their closing quote,
// objects and arrays by their depth. What is not JSON ends the walk early, at
// the latest with the last byte; PostgreSQL has refused that before.
func members(object []byte, visit func(key, value []byte) bool) {
	i := skipSpace(object, 0)
	if i >= len(object) || object[i] != '{' {
		return
	}
	for i++; ; i++ {
		if i = skipSpace(object, i); i >= len(object) || object[i] != '"' {
			return
		}
		key := i
		if i = skipString(object, i); i < 0 {
			return
		}
		name := object[key:i]
		if i = skipSpace(object, i); i >= len(object) || object[i] != ':' {
			return
		}
		value := skipSpace(object, i+1)
		if i = skipValue(object, value); i < 0 || !visit(name, object[value:i]) {
			return
		}
		if i = skipSpace(object, i); i >= len(object) || object[i] != ',' {
			return
		}
	}
}

// lookup gives what stands at a path in a value, nil where there is nothing: of
// an object the first member of that name, of an array the element 0. An empty
// path is the value itself.
func lookup(value []byte, path string) []byte {
	for path != "" && value != nil {
		name, rest, _ := strings.Cut(path, ".")
		within := value
		value, path = nil, rest
		if name == "0" && len(within) > 0 && within[0] == '[' {
			first := skipSpace(within, 1)
			if end := skipValue(within, first); end >= 0 {
				value = within[first:end]
			}
			continue
		}
		members(within, func(key, found []byte) bool {
			if isKey(key, name) {
				value = found
			}
			return value == nil
		})
	}
	return value
}

// unquoted gives what a JSON string spells.
func unquoted(quoted []byte) string {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner)
	}
	return gjson.ParseBytes(quoted).String()
}

// isKey reports whether a quoted key spells name, however it is escaped.
func isKey(quoted []byte, name string) bool {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner) == name
	}
	return unquoted(quoted) == name
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// skipString gives the place behind the string that begins at i, -1 where it
// does not end.
func skipString(b []byte, i int) int {
	for end := i + 1; ; end++ {
		quote := bytes.IndexByte(b[end:], '"')
		if quote < 0 {
			return -1
		}
		end += quote
		escape := end
		for b[escape-1] == '\\' { // the opening quote ends it
			escape--
		}
		if (end-escape)%2 == 0 {
			return end + 1
		}
	}
}

// skipValue gives the place behind the value that begins at i, -1 where there
// is none or it does not end.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
	default:
		end := i
		for end < len(b) && !endsLiteral(b[end]) {
			end++
		}
		if end == i {
			return -1
		}
		return end
	}
	for depth := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			if i = skipString(b, i) - 1; i < 0 {
				return -1
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
			if depth == 0 {
				return i + 1
			}
		}
	}
	return -1
}

// endsLiteral reports whether c ends a number, true, false or null.
func endsLiteral(c byte) bool {
	switch c {
	case ',', '}', ']', ' ', '\n', '\r', '\t':
		return true
	default:
		return false
	}
}
