package outbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
)

// chatDatabase is the database of an example: a chat system's with one
// conversation.
func chatDatabase() (db *sql.DB, done func()) {
	t := &exampleTB{}
	db = pgtest.New(t).SQL
	if _, err := db.ExecContext(t.Context(), `
CREATE TABLE conversations (id bigint PRIMARY KEY, messages_count bigint NOT NULL);
INSERT INTO conversations VALUES (346, 0)`); err != nil {
		panic(err)
	}
	return db, t.finish
}

// exampleTB is what pgtest needs of a test, for examples have none.
type exampleTB struct {
	testing.TB
	cleanups []func()
}

func (t *exampleTB) Name() string                      { return "TestExample" }
func (t *exampleTB) Helper()                           {}
func (t *exampleTB) Context() context.Context          { return context.Background() }
func (t *exampleTB) Failed() bool                      { return false }
func (t *exampleTB) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *exampleTB) Fatal(args ...any)                 { panic(fmt.Sprint(args...)) }
func (t *exampleTB) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *exampleTB) Errorf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (t *exampleTB) finish() {
	for len(t.cleanups) > 0 {
		last := len(t.cleanups) - 1
		cleanup := t.cleanups[last]
		t.cleanups = t.cleanups[:last]
		cleanup()
	}
}
