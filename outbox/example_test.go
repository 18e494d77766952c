package outbox_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/outrider-relay/outrider/outbox"
)

// addMessage adds a message to a conversation and tells of it, in one
// transaction: webhooks hear of it if, and only if, it is there.
func addMessage(ctx context.Context, db *sql.DB, conversation int64, content string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after Commit

	// The conversation's row is locked first, so that its events are delivered
	// in the order in which they happened.
	var message int64
	err = tx.QueryRowContext(ctx, `UPDATE conversations SET messages_count = messages_count + 1 WHERE id = $1 RETURNING messages_count`, conversation).Scan(&message)
	if err != nil {
		return err
	}
	payload, err := json.Marshal(map[string]any{
		"id": message, "content": content, "conversation": map[string]any{"id": conversation},
	})
	if err != nil {
		return err
	}
	_, err = outbox.Writer{}.Write(ctx, tx, outbox.Event{AccountID: 1, Name: "message_created", Payload: payload})
	if err != nil {
		return err
	}
	return tx.Commit()
}

func ExampleWriter() {
	ctx := context.Background()
	db, done := chatDatabase() // the chat system's, to which Outrider's schema was added
	defer done()

	if err := addMessage(ctx, db, 346, "Hello"); err != nil {
		fmt.Println(err)
	}

	var payload string
	if err := db.QueryRowContext(ctx, `SELECT payload FROM outbox.events WHERE event = 'message_created'`).Scan(&payload); err != nil {
		fmt.Println(err)
	}
	fmt.Println(payload)
	// Output: {"content":"Hello","conversation":{"id":346},"id":1}
}
