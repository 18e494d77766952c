package relay

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"

	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/outbox"
)

// routing decides where each chat event goes. It is the one Watermill handler.
type routing struct {
	tail     *outbox.Tail
	webhooks Webhooks
	// saltKey reads the key that a chat event's salt is derived from, and makes
	// one where there is none.
	saltKey func(ctx context.Context, eventSeq int64) (domain.SaltKey, error)
	salts   domain.Salts
	maxBody int
	logger  *slog.Logger
	// configs are accounts' configurations by version; the row says which
	// version its snapshot has.
	configs map[domain.AccountID]domain.Configuration
	// seen are the ids of the batch at hand, before those of the batch before
	// where its rows were read ahead.
	seen, before map[eventKey]int64
	// told says of the rows of the operator's account, of the batch at hand,
	// whether the relay wrote them.
	told map[int64]bool
}

type eventKey struct {
	account domain.AccountID
	id      domain.EventID
}

// maxConfigs bounds the cache; beyond it begins anew.
const maxConfigs = 50_000

// handle is the Watermill handler. It never returns an error: a nack would
// make Watermill resend the message inside the same transaction for ever. An
// event that cannot be routed is quarantined. The one thing that can fail
// without the event's doing is reading the configuration; then the row is left
// without a decision, which the tail refuses to ack, and the batch is read
// again.
func (r *routing) handle(msg *message.Message) error {
	row, ok := r.tail.Row(msg)
	if !ok {
		return nil // of a batch that was given up
	}
	if len(row.ID) == 0 || row.ID == (domain.EventID{}) {
		row.ID = domain.NewEventID(row.AccountID, row.Seq, row.InsertedAt)
	}
	if row.Place == 0 {
		r.seen, r.before = r.before, r.seen
		clear(r.seen)
		if !r.tail.ReadAhead() {
			clear(r.before) // the look-up finds what is on record
		}
	}
	row.Routed = domain.Routed{EventName: row.Name, ConfigVersion: row.ConfigVersion, BodyBytes: row.PayloadBytes}

	config, ok := r.configs[row.AccountID]
	if !ok || config.Version != row.ConfigVersion {
		if row.ConfigVersion == 0 {
			config = domain.Configuration{}
		} else {
			tx, ok := wsql.TxFromContext(msg.Context())
			if !ok {
				return nil // without the tail's transaction the ack fails, and the batch is read again
			}
			read, err := r.webhooks.Configurations(msg.Context(), tx, r.stale())
			if err != nil {
				r.logger.Warn("reading the configuration failed; the batch is read again", "error", err)
				return nil
			}
			if len(r.configs)+len(read) > maxConfigs {
				clear(r.configs)
			}
			for account, c := range read {
				r.configs[account] = c
			}
			config = r.configs[row.AccountID]
			if config.Version != row.ConfigVersion { // of another snapshot: no decision is better than a wrong one
				r.logger.Warn("the configuration is not of the batch's snapshot; the batch is read again", "account_id", row.AccountID)
				return nil
			}
		}
	}
	var tested domain.WebhookID
	if row.Name == domain.EventWebhookTest {
		tx, ok := wsql.TxFromContext(msg.Context())
		if !ok {
			return nil // as above
		}
		var err error
		if tested, err = r.webhooks.Tested(msg.Context(), tx, row.Seq); err != nil {
			r.logger.Warn("reading what a test is for failed; the batch is read again", "error", err)
			return nil
		}
	}
	if row.AccountID == domain.OperatorAccount && tested == 0 {
		wrote, err := r.wrote(msg.Context(), row.Seq)
		if err != nil {
			r.logger.Warn("reading who wrote an event of the operator's account failed; the batch is read again", "error", err)
			return nil
		}
		if !wrote {
			row.Routed.EventName, row.Payload = printableName(row.Name), nil
			row.Routed.Routing = domain.Routing{Kind: domain.RoutingQuarantined, Reason: string(domain.QuarantineReserved)}
			return nil
		}
	}
	salt := r.salts.Of(row.Seq)
	if salt == nil {
		key, err := r.saltKey(msg.Context(), row.Seq)
		if err != nil {
			r.logger.Warn("reading the key of an event's salt failed; the batch is read again", "error", err)
			return nil
		}
		r.salts.Take(key)
		salt = r.salts.Of(row.Seq)
	}
	r.decide(row, config, tested, salt)
	return nil
}

// stale lists the accounts of the batch whose configuration is not in memory
// at the version that the batch's snapshot has.
func (r *routing) stale() []domain.AccountID {
	var accounts []domain.AccountID
	listed := map[domain.AccountID]bool{}
	for _, row := range r.tail.Rows() {
		if c, ok := r.configs[row.AccountID]; (!ok || c.Version != row.ConfigVersion) && row.ConfigVersion > 0 && !listed[row.AccountID] {
			listed[row.AccountID] = true
			accounts = append(accounts, row.AccountID)
		}
	}
	return accounts
}

// decide leaves the decision in the row. tested is the webhook that it is a
// test of, 0 for none.
func (r *routing) decide(row *outbox.Row, config domain.Configuration, tested domain.WebhookID, salt []byte) {
	defer func() {
		if recovered := recover(); recovered != nil {
			r.logger.Error("routing failed", "event_seq", row.Seq, "panic", fmt.Sprint(recovered))
			row.Routed = domain.Routed{Routing: domain.Routing{Kind: domain.RoutingQuarantined, Reason: string(domain.QuarantinePanic)}, EventName: printableName(row.Name)}
		}
	}()
	row.Routed.EventName = printableName(row.Name)
	facts, quarantine := domain.Inspect(row.ChatEvent, r.maxBody)
	row.Payload = nil // the body is all that is needed of it, for as long as the delivery waits
	if quarantine != domain.QuarantineNone {
		row.Routed.Routing = domain.Routing{Kind: domain.RoutingQuarantined, Reason: string(quarantine)}
		return
	}
	row.Routed.OrderingKey = facts.OrderingKey
	row.Routed.BodyBytes = len(facts.Body)
	key := eventKey{row.AccountID, row.ID}
	if row.DuplicateOf == 0 {
		row.DuplicateOf = cmp.Or(r.before[key], r.seen[key])
	}
	if row.DuplicateOf != 0 {
		row.Routed.Routing = domain.Routing{Kind: domain.RoutingDuplicate}
		row.Routed.DuplicateOf = row.DuplicateOf
		return
	}
	r.seen[key] = row.Seq
	if tested != 0 {
		row.Routed.Routing = domain.RouteTest(tested, config)
	} else {
		row.Routed.Routing = domain.Route(row.Name, facts.InboxID, config)
	}
	if len(row.Routed.Targets) == 0 && len(row.Routed.Skips) == 0 {
		return
	}
	row.Body = facts.Body
	row.Traceparent = domain.Traceparent(row.Metadata)
	row.Routed.Digest = Digest(salt, row.Body)
}

// Digest identifies a body without telling it: SHA-256 over the event's salt
// and the body, in hex. Once the salt cannot be derived any more nobody can guess
// the body: see domain.SaltKey.
func Digest(salt, body []byte) string {
	h := sha256.New()
	h.Write(salt)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil))
}

// printableName keeps the log readable where the name is anything but one.
func printableName(name string) string {
	const most = 100
	if len(name) > most {
		name = name[:most]
	}
	return name
}
