package web

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/domain/audit"
)

// relayRoutes are those of relays, which are of all accounts.
func relayRoutes() []route {
	return []route{
		{Route{Method: "GET", Pattern: "/relays", Permission: domain.Read, AllAccounts: true}, (*pages).relays},
		{Route{Method: "GET", Pattern: "/relays/live", Permission: domain.Read, AllAccounts: true, Stream: true}, (*pages).relaysLive},
	}
}

// relayStates are the states for people.
var relayStates = map[audit.RelayState]statusOf{
	audit.RelayWorking:    {"Working", "good", "✓"},
	audit.RelayWaiting:    {"Waits for work", "waiting", "…"},
	audit.RelayRoutesOnly: {"Routes, sends nothing", "waiting", "…"},
	audit.RelayLeaving:    {"Stops", "waiting", "…"},
	audit.RelaySilent:     {"Silent", "bad", "?"},
	audit.RelayStopped:    {"Stopped", "", "○"},
	audit.RelayFenced:     {"Fenced", "bad", "✗"},
	audit.RelayNone:       {"Nobody’s", "bad", "✗"},
}

// shownRelay is a relay in the list.
type shownRelay struct {
	audit.Relay
	Shown statusOf
	// Numbers are those of its shards, in ranges.
	Numbers string
	// Of is how many shards it has.
	Of int
}

// PartID is the id of its row.
func (s *shownRelay) PartID() string { return "r-" + strconv.FormatInt(s.ID, 10) }

// shownRelays is the list.
type shownRelays struct {
	Relays []shownRelay
	// Ended says that those that ended within a day are in it.
	Ended bool
	// Query is what of the path says so, "" for nothing.
	Query string
}

// newShownRelays gives none where there is nothing but what nobody has.
func newShownRelays(relays []audit.Relay) (list []shownRelay) {
	if len(relays) == 1 && relays[0].State == audit.RelayNone {
		return nil
	}
	for i := range relays {
		numbers := relays[i].ShardNumbers()
		list = append(list, shownRelay{relays[i], relayStates[relays[i].State], ranges(numbers), len(numbers)})
	}
	return list
}

// ranges is "0–31, 40".
func ranges(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := strconv.Itoa(numbers[i])
		if j > i {
			part += "–" + strconv.Itoa(numbers[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ", ")
}

// readRelays reads the relays of the database.
func (p *pages) readRelays(ctx context.Context, ended bool) ([]shownRelay, error) {
	relays, err := p.Audit.Relays(ctx, ended)
	return newShownRelays(relays), err
}

// relays lists them.
func (p *pages) relays(w http.ResponseWriter, r *request) error {
	shown := &shownRelays{Ended: endedToo(r)}
	if shown.Ended {
		shown.Query = "?ended=yes"
	}
	var err error
	if shown.Relays, err = p.readRelays(r.Context(), shown.Ended); err != nil {
		return err
	}
	return p.render(w, r, http.StatusOK, "relays", &view{Title: "Relays", Nav: "relays", Scripts: []string{"live.js"}, Styles: []string{"history.css"}, Data: shown})
}

// endedToo says that those that ended within a day are wanted too.
func endedToo(r *request) bool { return r.URL.Query().Get("ended") != "" }

// relaysLive keeps the list up to date. Signs of life are no entries in the
// history.
func (p *pages) relaysLive(w http.ResponseWriter, r *request) error {
	ended := endedToo(r)
	return p.stream(w, r, "/relays?"+strconv.FormatBool(ended), subject{every: livePoll, read: func(ctx context.Context) ([]fragment, error) {
		relays, err := p.readRelays(ctx, ended)
		if err != nil {
			return nil, err
		}
		return p.relayParts("relays", relays)
	}})
}

// relayParts are the rows of relays on a page.
func (p *pages) relayParts(page string, relays []shownRelay) ([]fragment, error) {
	rows := make([]fragment, len(relays))
	for i := range relays {
		var err error
		if rows[i], err = p.part(page, "relay", relays[i].PartID(), &relays[i]); err != nil {
			return nil, err
		}
	}
	return rows, nil
}
