package web

import (
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

// shownRelays is the list.
type shownRelays struct {
	Relays []shownRelay
	// Ended says that those that ended within a day are in it.
	Ended bool
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

// relays lists the relays of the database.
func (p *pages) relays(w http.ResponseWriter, r *request) error {
	ended := r.URL.Query().Get("ended") != ""
	relays, err := p.Audit.Relays(r.Context(), ended)
	if err != nil {
		return err
	}
	return p.render(w, r, http.StatusOK, "relays", &view{Title: "Relays", Nav: "relays", Styles: []string{"history.css"}, Data: &shownRelays{newShownRelays(relays), ended}})
}
