package web

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/outrider-relay/outrider/domain"
)

// accountRoutes choose an account.
func accountRoutes() []route {
	return []route{
		{Route{Method: "GET", Pattern: "/accounts", Permission: domain.Read, AllAccounts: true}, (*pages).accounts},
	}
}

// maxAccounts bounds the list; the rest is found by its number.
const maxAccounts = 500

// shownAccounts are the accounts to choose from.
type shownAccounts struct {
	Accounts []shownAccount
	// Total is how many there are, where the list has not all of them.
	Total int
	// Typed is what was looked for, Problem what is wrong with it.
	Typed, Problem string
}

// shownAccount is an account with the states of its webhooks.
type shownAccount struct {
	ID                         domain.AccountID
	Webhooks, Paused, Disabled int
	Down, Unreadable           int
}

// accounts lists the accounts that have webhooks, or goes to one by its number.
func (p *pages) accounts(w http.ResponseWriter, r *request) error {
	shown := &shownAccounts{Typed: r.URL.Query().Get("account")}
	if shown.Typed != "" {
		id, err := strconv.ParseInt(shown.Typed, 10, 64)
		if err == nil && id != 0 {
			return redirect(w, r, accountPath(domain.AccountID(id), "webhooks"))
		}
		shown.Problem = "This is not the number of an account; write it like 42."
	}
	hooks, err := p.Webhooks.List(r.Context(), 0)
	if err != nil {
		return err
	}
	for i := range hooks {
		hook := &hooks[i]
		n := len(shown.Accounts)
		if n == 0 || shown.Accounts[n-1].ID != hook.AccountID {
			shown.Accounts = append(shown.Accounts, shownAccount{ID: hook.AccountID})
			n++
		}
		shown.Accounts[n-1].add(hook)
	}
	if !slices.ContainsFunc(shown.Accounts, func(a shownAccount) bool { return a.ID == domain.OperatorAccount }) {
		shown.Accounts = slices.Insert(shown.Accounts, 0, shownAccount{ID: domain.OperatorAccount})
	}
	if shown.Total = len(shown.Accounts); shown.Total > maxAccounts {
		shown.Accounts = shown.Accounts[:maxAccounts]
	}
	return p.render(w, r, http.StatusOK, "accounts", &view{Title: "Accounts", Nav: "accounts", Data: shown})
}

// add counts a webhook.
func (a *shownAccount) add(hook *domain.Webhook) {
	a.Webhooks++
	if hook.Unreadable != "" {
		a.Unreadable++
	}
	switch hook.State {
	case domain.WebhookPaused:
		a.Paused++
	case domain.WebhookDisabled:
		a.Disabled++
	case domain.WebhookNone, domain.WebhookEnabled, domain.WebhookDeleted:
	}
	if hook.Breaker() == domain.BreakerOpen {
		a.Down++
	}
}
