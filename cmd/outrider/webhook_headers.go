package main

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/outrider-relay/outrider/domain"
)

// shownHeaders are a webhook's headers by name. The value is nil where it is
// not to be shown; so it stands in an export without secrets, and in the history.
type shownHeaders map[string]*string

func showHeaders(headers domain.Headers, reveal bool) shownHeaders {
	shown := shownHeaders{}
	for name, value := range headers.All() {
		shown[name] = nil
		if reveal {
			shown[name] = &value
		}
	}
	return shown
}

// String lists them for a table.
func (h shownHeaders) String() string {
	lines := slices.Sorted(maps.Keys(h))
	for i, name := range lines {
		if value := h[name]; value != nil {
			lines[i] += ": " + *value
		}
	}
	return strings.Join(lines, ", ")
}

// headerFlag adds --header.
func headerFlag(flags *pflag.FlagSet, headers *[]domain.Header, usage string) {
	linesOf(flags, headers, "header", "NAME: VALUE", usage, parseHeader)
}

// removeHeaderFlag adds --remove-header, which asks for a header without a
// value.
func removeHeaderFlag(flags *pflag.FlagSet, headers *[]domain.Header) {
	linesOf(flags, headers, "remove-header", "NAME", "a header to send no more; again for more", func(text string) (domain.Header, error) {
		return domain.Header{Name: text}, nil
	})
}

// parseHeader reads a line. Nothing of it is quoted: who forgets the name has
// written a secret alone.
func parseHeader(text string) (domain.Header, error) {
	name, value, ok := strings.Cut(text, ":")
	if value = strings.TrimSpace(value); !ok || value == "" {
		return domain.Header{}, errors.New("a value is not like 'NAME: VALUE'")
	}
	return domain.NewHeader(strings.TrimSpace(name), value), nil
}

// headersMember reads an object of names and values.
func headersMember(raw json.RawMessage, dest *[]domain.Header) error {
	var given map[string]*string
	if err := member(raw, &given, "an object of names and values, which are text, or null where they are left out"); err != nil {
		return err
	}
	*dest = make([]domain.Header, 0, len(given))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		value := given[name]
		switch {
		case value == nil:
			*dest = append(*dest, domain.Header{Name: name})
		case *value == "":
			return errors.New("one of them is empty; null says that it is left out")
		default:
			*dest = append(*dest, domain.NewHeader(name, *value))
		}
	}
	return nil
}
