package migrations

import (
	"regexp"
	"slices"
	"strings"
)

// Schemas are those that the migrations make.
var Schemas = []string{"outbox", "relay", "audit"}

// Roles are the groups without login that the migrations make. They belong to
// the whole cluster: databases share them.
var Roles = []string{"outrider_producer", "outrider_relay", "outrider_operator", "outrider_auditor", "outrider_tenant", "outrider_views", "outrider_web"}

// Object is a thing that a migration makes in one of the Schemas.
type Object struct {
	// Kind is table, view, sequence, function, type or trigger. A trigger has
	// no schema of its own, but that of its table.
	Kind, Schema, Name string
}

var (
	created        = regexp.MustCompile(`(?mi)^\s*CREATE (?:OR REPLACE )?(?:UNLOGGED )?(TABLE|VIEW|SEQUENCE|FUNCTION|TYPE) (?:IF NOT EXISTS )?(outbox|relay|audit)\.(\w+)`)
	createdTrigger = regexp.MustCompile(`(?mi)^\s*CREATE (?:OR REPLACE )?(?:CONSTRAINT )?TRIGGER (\w+)\s[^;]*?\sON (outbox|relay|audit)\.\w+`)
)

// Objects lists what the migrations of this binary have ever made, sorted;
// what a later one dropped is still named. It is read from their text, so that
// it cannot fall behind it. The partitions that relay.extend_partitions makes
// are not in it: they are known by their parents.
func Objects() []Object {
	known := map[Object]bool{{"table", "relay", "schema_migrations"}: true}
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // embedded: it is there
	}
	for _, entry := range entries {
		text, err := files.ReadFile(entry.Name())
		if err != nil {
			panic(err) // as above
		}
		for _, match := range created.FindAllStringSubmatch(string(text), -1) {
			known[Object{strings.ToLower(match[1]), match[2], match[3]}] = true
		}
		for _, match := range createdTrigger.FindAllStringSubmatch(string(text), -1) {
			known[Object{"trigger", match[2], match[1]}] = true
		}
	}
	objects := make([]Object, 0, len(known))
	for object := range known {
		objects = append(objects, object)
	}
	slices.SortFunc(objects, func(a, b Object) int {
		return slices.Compare([]string{a.Kind, a.Schema, a.Name}, []string{b.Kind, b.Schema, b.Name})
	})
	return objects
}
