package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

func (v *v1) addRelays() {
	v1Add(v, &v1Operation{
		method: http.MethodGet, path: "/relays", id: "listRelays", tag: tagHealth, may: domain.Read,
		summary: "List the relays of the database, and what each has of the work",
		about: "In the order of their ids; what nobody has is the last one, with relay_id null. A webhook is in the shard of its id modulo 64. " +
			"States: working; waiting (has nothing: it has just begun, or others have all); routes_only (makes no POST); leaving (takes nothing any more, and finishes its attempts); " +
			"silent (gave no sign of life for 2 s); stopped; fenced (gave no sign of life: its work was taken from it); unowned (no relay).",
	}, v.listRelays)
}

// v1Relay is what "outrider relays --format json" writes.
type v1Relay struct {
	RelayID    *int64     `json:"relay_id" doc:"Its id; null for what nobody has." example:"1"`
	Name       *string    `json:"name" doc:"The host that it runs on, or what it was called." example:"relay-1"`
	Version    *string    `json:"version" doc:"Its version." example:"v1.0.0"`
	Sends      *bool      `json:"sends" doc:"Whether it makes POSTs." example:"true"`
	StartedAt  *time.Time `json:"started_at" doc:"When it began." example:"2026-07-01T12:00:00Z"`
	State      string     `json:"state" doc:"How it is. There may be more states one day." example:"working"`
	LastSignAt *time.Time `json:"last_sign_at" doc:"When it gave its last sign of life, by the database's clock." example:"2026-07-01T12:00:00Z"`
	Shards     []int      `json:"shards" doc:"The shards of webhooks that it has, 0 to 63." example:"[0,1,2]"`
	ShardCount int        `json:"shard_count" doc:"How many those are." example:"3"`
	Tails      bool       `json:"tails" doc:"Whether it routes events." example:"true"`
	Position   *int64     `json:"position" doc:"The last batch of which each delivery to its shards is begun or waits for its time." example:"4711"`
	Behind     *int64     `json:"behind" doc:"How many batches followed that one." example:"0"`
	EndedAt    *time.Time `json:"ended_at" doc:"When it ended." example:"2026-07-01T13:00:00Z"`
	EndedBy    *int64     `json:"ended_by" doc:"The relay that fenced it." example:"2"`
}

func showRelay(r *audit.Relay) v1Relay {
	shown := v1Relay{
		RelayID: orNil(r.ID), Name: orNil(r.Name), Version: orNil(r.Version), StartedAt: orNever(r.StartedAt), State: string(r.State), LastSignAt: orNever(r.LastSignAt),
		Shards: r.ShardNumbers(), Tails: r.Tails, EndedAt: orNever(r.EndedAt), EndedBy: orNil(r.EndedBy),
	}
	shown.ShardCount = len(shown.Shards)
	if r.ID != 0 {
		shown.Sends = &r.Sends
	}
	if r.Shards != 0 {
		shown.Position, shown.Behind = &r.Position, &r.Behind
	}
	return shown
}

// v1Relays has them all: there are few.
type v1Relays struct {
	Data []v1Relay `json:"data" doc:"The relays."`
}

func (v *v1) listRelays(ctx context.Context, in *struct {
	All bool `query:"all" doc:"Also those that ended within a day." example:"true"`
}) (*struct{ Body v1Relays }, error) {
	relays, err := v.config.Relays(ctx, in.All)
	if err != nil {
		return nil, err
	}
	return &struct{ Body v1Relays }{v1Relays{showAll(relays, showRelay)}}, nil
}
