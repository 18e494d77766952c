package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/outrider-relay/outrider/adapters/bench"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// benchLeft says what stays in a database of the user's.
var benchLeft = fmt.Sprintf("What was measured stays in the given database, as events and history of accounts %d to %d, since the log is only added to; their webhooks are deleted. "+
	"To get rid of it drop the database, or all of Outrider in it: outrider uninstall, then outrider migrate.", bench.FirstAccount, bench.FirstAccount+bench.Accounts-1)

// foreignQuery finds data that no bench wrote. In a database that only benches
// used it reads all events: those cannot be many.
const foreignQuery = `
SELECT EXISTS (SELECT FROM relay.accounts WHERE account_id NOT BETWEEN $1::bigint AND $2::bigint),
       EXISTS (SELECT FROM relay.webhooks WHERE account_id NOT BETWEEN $1::bigint AND $2::bigint),
       EXISTS (SELECT FROM outbox.events WHERE account_id NOT BETWEEN $1::bigint AND $2::bigint)`

// openGiven opens the user's database, or says why it is not fit.
func (b *benchRig) openGiven(ctx context.Context) error {
	// Not named as a relay is: it would be taken for one.
	db, err := postgres.Open(b.dsn, "outrider")
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(benchPool)
	db.SetMaxIdleConns(benchPool)
	if err := b.fit(ctx, db); err != nil {
		return errors.Join(err, db.Close())
	}
	b.shared = &bench.Database{DSN: b.dsn, DB: db}
	return nil
}

// fit says whether a bench may run on a database.
func (b *benchRig) fit(ctx context.Context, db *sql.DB) error {
	if err := postgres.CheckRelay(ctx, db); err != nil {
		return err
	}
	relays, err := postgres.Relays(ctx, db)
	if err != nil {
		return err
	}
	if len(relays) > 0 {
		return &failure{"a relay is at work on the database: " + strings.Join(relays, ", "), "it would deliver what is to be measured: " + stopRelays}
	}
	var foreign [3]bool
	err = db.QueryRowContext(ctx, foreignQuery, bench.FirstAccount, bench.FirstAccount+bench.Accounts-1).Scan(&foreign[0], &foreign[1], &foreign[2])
	if err != nil || b.iKnow {
		return err
	}
	var found []string
	for i, what := range []string{"accounts", "webhooks", "events"} {
		if foreign[i] {
			found = append(found, what)
		}
	}
	if len(found) > 0 {
		return &failure{"the database holds data that no bench wrote: " + strings.Join(found, ", "),
			"a bench makes a relay deliver all that waits there, and its events stay; give it a database of its own, or --i-know"}
	}
	return nil
}

// leave deletes the webhooks, with which what still waits is cancelled by the
// next relay, and the tables that were measured beside the outbox.
func (b *benchRig) leave(ctx context.Context) error {
	var problems []error
	for account, id := range b.webhooks {
		_, _, err := postgres.NewWebhooks(b.shared.DB).Change(ctx, domain.AccountID(bench.FirstAccount+account), domain.WebhookID(id), benchActor, domain.DeleteWebhook{})
		if err != nil {
			problems = append(problems, fmt.Errorf("delete webhook %d: %w", id, err))
		}
	}
	if _, err := b.shared.DB.ExecContext(ctx, bench.DropTables); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(append(problems, b.shared.DB.Close())...)
}
