package chatwoot

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"github.com/lib/pq"
)

// tableQuery reads whole rows as JSON: older versions of Chatwoot lack the
// columns name and secret.
const tableQuery = `
SELECT to_jsonb(w)::text FROM webhooks w
 WHERE $1::bigint[] IS NULL OR w.account_id = ANY ($1::bigint[])
 ORDER BY w.account_id, w.id`

// ReadTable reads the table webhooks of Chatwoot's database, of some accounts
// or, with none given, of all, in a transaction that can write nothing. The
// error is an *Error or one of the database.
func ReadTable(ctx context.Context, db *sql.DB, accounts []int64) ([]Webhook, error) {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }()
	var exists, readable bool
	var name, user string
	err = tx.QueryRowContext(ctx, `
SELECT to_regclass('webhooks') IS NOT NULL, coalesce(has_table_privilege(to_regclass('webhooks'), 'SELECT'), false), current_database(), current_user`).
		Scan(&exists, &readable, &name, &user)
	switch {
	case err != nil:
		return nil, err
	case !exists:
		return nil, &Error{Problem: fmt.Sprintf("database %q has no table webhooks", name), Advice: "is it Chatwoot's? Its POSTGRES_DATABASE names it; a search_path may be in the URL"}
	case !readable:
		return nil, &Error{Problem: fmt.Sprintf("user %q may not read Chatwoot's table webhooks", user), Advice: "as its owner: GRANT SELECT ON webhooks TO " + pq.QuoteIdentifier(user)}
	}
	var only sql.NullString
	if len(accounts) > 0 {
		ids := make([]string, len(accounts))
		for i, id := range accounts {
			ids[i] = strconv.FormatInt(id, 10)
		}
		only = sql.NullString{String: "{" + strings.Join(ids, ",") + "}", Valid: true}
	}
	rows, err := tx.QueryContext(ctx, tableQuery, only)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var hooks []Webhook
	for rows.Next() {
		var text []byte
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		r, err := decode(text)
		if err != nil {
			return nil, &Error{Problem: "a row of Chatwoot's table webhooks is not as any known version writes it", Advice: "read the webhooks from its API: --chatwoot-url"}
		}
		hooks = append(hooks, r.webhook())
	}
	return hooks, rows.Err()
}
