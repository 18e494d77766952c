package main

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestCommandLineAndAPIUseTheSameWords: what both show has the same members in
// JSON, so that a script can take either.
func TestCommandLineAndAPIUseTheSameWords(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../adapters/httpapi/testdata/v1_openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	for schema, words := range map[string][]string{
		"Webhook":  namesOf(webhookColumns),
		"Revealed": namesOf(withSecret),
		"Event":    namesOf(eventColumns),
		"Delivery": namesOf(deliveryColumns),
		"Attempt":  namesOf(attemptColumns),
		"Change":   namesOf(changeColumns),
		"Health":   namesOf(healthColumns),
		"Stats":    namesOf(statsColumns),
		"Replay":   namesOf(replayColumns),
		"Plan":     namesOf(planColumns),
		"Part":     namesOf(partColumns),
		"Relay":    namesOf(relayColumns),

		"Trace":         membersOf[tracedEvent](),
		"DeliveryTrace": membersOf[tracedDelivery](),
		"Entry":         membersOf[tracedEntry](),
	} {
		slices.Sort(words)
		if got := slices.Sorted(maps.Keys(document.Components.Schemas[schema].Properties)); !slices.Equal(got, words) {
			t.Errorf("%s has in the API\n%q, and on the command line\n%q", schema, got, words)
		}
	}
}

func namesOf[T any](columns []column[T]) []string {
	names := make([]string, len(columns))
	for i := range columns {
		names[i] = columns[i].name
	}
	return names
}

func membersOf[T any]() []string {
	var names []string
	for field := range reflect.TypeFor[T]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}
