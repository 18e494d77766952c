package chat

import (
	"context"
	"database/sql"
	"encoding/json"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// SaveMessage stores a message and announces it, both or neither.
func SaveMessage(ctx context.Context, db *sql.DB, account, conversation int64, content string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()

	// First the conversation: its lock keeps the events in order.
	if _, err := tx.ExecContext(ctx, `UPDATE conversations SET last_activity_at = now() WHERE id = $1`, conversation); err != nil {
		return err
	}
	var id int64
	if err := tx.QueryRowContext(ctx, `INSERT INTO messages (account_id, conversation_id, content) VALUES ($1, $2, $3) RETURNING id`,
		account, conversation, content).Scan(&id); err != nil {
		return err
	}
	payload, err := json.Marshal(map[string]any{
		"id": id, "content": content, "conversation": map[string]any{"id": conversation},
	})
	if err != nil {
		return err
	}
	event := outbox.Event{AccountID: domain.AccountID(account), Name: "message_created", Payload: payload}
	if _, err := (outbox.Writer{}).Write(ctx, tx, event); err != nil {
		return err
	}
	return tx.Commit()
}
