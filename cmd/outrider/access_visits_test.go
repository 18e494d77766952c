package main

import (
	"net/http"
	"testing"

	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/adapters/web"
	"github.com/outrider-relay/outrider/domain"
)

// chatwootVisits are the routes of Chatwoot's API, which are for administrators
// alone.
var chatwootVisits = map[string]visit{
	"GET /api/v1/accounts/{account}/webhooks":              {takes: domain.Reveal, status: http.StatusOK},
	"POST /api/v1/accounts/{account}/webhooks":             {takes: domain.Configure, status: http.StatusOK, body: `{"url":"{url}"}`},
	"PATCH /api/v1/accounts/{account}/webhooks/{webhook}":  {takes: domain.Configure, status: http.StatusOK, body: `{"name":"x"}`},
	"PUT /api/v1/accounts/{account}/webhooks/{webhook}":    {takes: domain.Configure, status: http.StatusOK, body: `{"name":"x"}`},
	"DELETE /api/v1/accounts/{account}/webhooks/{webhook}": {takes: domain.Configure, status: http.StatusOK},
	"/api/v1/": {status: http.StatusNotFound},
}

const (
	ownAccount = "/api/outrider/v1/accounts/{account_id}/"
	ownWebhook = ownAccount + "webhooks/{webhook_id}"
	ownReplay  = ownAccount + "replays/{replay_id}"
)

// ownVisits are the routes of Outrider's own API.
var ownVisits = map[string]visit{
	"GET " + ownAccount + "webhooks":                   {takes: domain.Read, status: http.StatusOK},
	"POST " + ownAccount + "webhooks":                  {takes: domain.Configure, status: http.StatusCreated, body: `{"url":"{url}"}`},
	"GET " + ownWebhook:                                {takes: domain.Read, status: http.StatusOK},
	"PATCH " + ownWebhook:                              {takes: domain.Configure, status: http.StatusOK, body: `{"name":"x"}`},
	"DELETE " + ownWebhook:                             {takes: domain.Configure, status: http.StatusNoContent},
	"POST " + ownWebhook + "/pause":                    {takes: domain.Operate, status: http.StatusOK},
	"POST " + ownWebhook + "/enable":                   {takes: domain.Operate, status: http.StatusOK, made: "paused"},
	"POST " + ownWebhook + "/disable":                  {takes: domain.Configure, status: http.StatusOK},
	"POST " + ownWebhook + "/close-breaker":            {takes: domain.Operate, status: http.StatusOK},
	"POST " + ownWebhook + "/test":                     {takes: domain.Operate, status: http.StatusAccepted},
	"POST " + ownWebhook + "/rotate-secret":            {takes: domain.Configure, status: http.StatusOK},
	"POST " + ownWebhook + "/reveal-secret":            {takes: domain.Reveal, status: http.StatusOK},
	"GET " + ownAccount + "webhook-changes":            {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "events":                     {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "events/{event_id}":          {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "events/{event_id}/timeline": {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "deliveries":                 {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "deliveries/{delivery_id}":   {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "attempts":                   {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "health":                     {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "stats":                      {takes: domain.Read, status: http.StatusOK},
	"GET " + ownAccount + "replays":                    {takes: domain.Read, status: http.StatusOK},
	"POST " + ownAccount + "replays":                   {takes: domain.Operate, status: http.StatusCreated, body: `{"event_ids":["{event}"]}`},
	"GET " + ownReplay:                                 {takes: domain.Read, status: http.StatusOK},
	"POST " + ownReplay + "/run":                       {takes: domain.Operate, status: http.StatusAccepted},
	"POST " + ownReplay + "/pause":                     {takes: domain.Operate, status: http.StatusOK, made: "requested"},
	"POST " + ownReplay + "/resume":                    {takes: domain.Operate, status: http.StatusOK, made: "paused"},
	"POST " + ownReplay + "/cancel":                    {takes: domain.Operate, status: http.StatusOK},
	"GET /api/outrider/v1/openapi.json":                {status: http.StatusOK},
	"GET /api/outrider/v1/openapi.yaml":                {status: http.StatusOK},
	"GET /api/outrider/v1/relays":                      {takes: domain.Read, all: true, status: http.StatusOK},
}

const (
	pagesAccount = "/accounts/{account}"
	pagesWebhook = pagesAccount + "/webhooks/{id}"
	pagesReplay  = pagesAccount + "/replays/{id}"
)

// pageVisits are the pages, and what says how the process is. Forms lead on to
// another page.
var pageVisits = map[string]visit{
	"GET /{$}":           {takes: domain.Read, status: http.StatusSeeOther},
	"GET /healthz":       {status: http.StatusOK},
	"GET /readyz":        {status: http.StatusOK},
	"GET /static/{name}": {status: http.StatusOK},
	"GET /login": {expect: func(v *visitor) int {
		if v.nobody() {
			return http.StatusOK
		}
		return http.StatusSeeOther
	}},
	"POST /login": {body: "token={token}", expect: func(v *visitor) int {
		if v.nobody() { // who has a form of the log-in is tested with it
			return http.StatusForbidden
		}
		return http.StatusSeeOther
	}},
	"POST /logout":                            {takes: domain.Read, status: http.StatusSeeOther},
	"GET /accounts":                           {takes: domain.Read, all: true, status: http.StatusOK},
	"GET " + pagesAccount + "/webhooks":       {takes: domain.Read, status: http.StatusOK},
	"POST " + pagesAccount + "/webhooks":      {takes: domain.Configure, status: http.StatusCreated, body: "url={url}&events=message_created"}, // it shows the secret
	"GET " + pagesAccount + "/webhooks/new":   {takes: domain.Configure, status: http.StatusOK},
	"GET " + pagesWebhook:                     {takes: domain.Read, status: http.StatusOK},
	"POST " + pagesWebhook:                    {takes: domain.Configure, status: http.StatusSeeOther, body: "url={url}&events=message_created&version={version}"},
	"GET " + pagesWebhook + "/changes":        {takes: domain.Read, status: http.StatusOK},
	"GET " + pagesWebhook + "/edit":           {takes: domain.Configure, status: http.StatusOK},
	"POST " + pagesWebhook + "/pause":         {takes: domain.Operate, status: http.StatusSeeOther},
	"POST " + pagesWebhook + "/enable":        {takes: domain.Operate, status: http.StatusSeeOther, made: "paused"},
	"POST " + pagesWebhook + "/close-breaker": {takes: domain.Operate, status: http.StatusSeeOther},
	"POST " + pagesWebhook + "/test":          {takes: domain.Operate, status: http.StatusSeeOther},
	"GET " + pagesWebhook + "/disable":        {takes: domain.Configure, status: http.StatusOK},
	"POST " + pagesWebhook + "/disable":       {takes: domain.Configure, status: http.StatusSeeOther},
	"GET " + pagesWebhook + "/delete":         {takes: domain.Configure, status: http.StatusOK},
	"POST " + pagesWebhook + "/delete":        {takes: domain.Configure, status: http.StatusSeeOther},
	"GET " + pagesWebhook + "/rotate-secret":  {takes: domain.Configure, status: http.StatusOK},
	"POST " + pagesWebhook + "/rotate-secret": {takes: domain.Configure, status: http.StatusOK, body: "overlap=24h&version={version}"}, // it shows the secret
	"POST " + pagesWebhook + "/reveal-secret": {takes: domain.Reveal, status: http.StatusOK},
}

// historyVisits are the pages about what became of events.
var historyVisits = map[string]visit{
	"GET /overview":                                     {takes: domain.Read, all: true, status: http.StatusOK},
	"GET /overview/live":                                {takes: domain.Read, all: true, status: http.StatusOK},
	"GET /relays":                                       {takes: domain.Read, all: true, status: http.StatusOK},
	"GET /relays/live":                                  {takes: domain.Read, all: true, status: http.StatusOK},
	"GET " + pagesAccount:                               {takes: domain.Read, status: http.StatusOK},
	"GET " + pagesAccount + "/live":                     {takes: domain.Read, status: http.StatusOK},
	"GET " + pagesAccount + "/deliveries":               {takes: domain.Read, status: http.StatusOK},
	"GET " + pagesAccount + "/deliveries/live":          {takes: domain.Read, status: http.StatusOK},
	"GET " + pagesAccount + "/events/{event_id}":        {takes: domain.Read, status: http.StatusOK},
	"GET " + pagesAccount + "/events/{event_id}/live":   {takes: domain.Read, status: http.StatusOK},
	"POST " + pagesAccount + "/events/{event_id}/again": {takes: domain.Operate, status: http.StatusSeeOther, body: "webhook={hook}"},
	"GET " + pagesAccount + "/replays":                  {takes: domain.Read, status: http.StatusOK},
	"GET " + pagesAccount + "/replays/new":              {takes: domain.Operate, status: http.StatusOK},
	"POST " + pagesAccount + "/replays/new":             {takes: domain.Operate, status: http.StatusSeeOther, body: "event_ids={event}"},
	"GET " + pagesReplay:                                {takes: domain.Read, status: http.StatusOK},
	"GET " + pagesReplay + "/live":                      {takes: domain.Read, status: http.StatusOK},
	"POST " + pagesReplay + "/run":                      {takes: domain.Operate, status: http.StatusSeeOther},
	"POST " + pagesReplay + "/pause":                    {takes: domain.Operate, status: http.StatusSeeOther, made: "requested"},
	"POST " + pagesReplay + "/resume":                   {takes: domain.Operate, status: http.StatusSeeOther, made: "paused"},
	"POST " + pagesReplay + "/cancel":                   {takes: domain.Operate, status: http.StatusSeeOther},
}

// siteRoutes are all routes of the site.
func siteRoutes(t *testing.T) []string {
	t.Helper()
	routes := append(httpapi.New(httpapi.Config{}).Routes(), "GET /healthz", "GET /readyz")
	for _, r := range web.Routes() {
		routes = append(routes, r.Method+" "+r.Pattern)
	}
	return routes
}
