package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/adapters/httpapi"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// configureByOwnAPI runs the README's requests to Outrider's own API, as curl
// would make them, with the rights of outrider web.
func (s *readmeStory) configureByOwnAPI() {
	s.t.Helper()
	_, token, err := postgres.NewTokens(s.admin).Create(s.t.Context(), domain.Access{AccountID: 1, Role: domain.RoleAdministrator, Name: "own API"}, time.Time{})
	if err != nil {
		s.t.Fatal(err)
	}
	db := s.open(readmeDatabase, "web_app")
	server := httptest.NewServer(httpapi.New(httpapi.Config{
		Tokens: postgres.NewTokens(db), Webhooks: postgres.NewWebhooks(db), History: postgres.NewAudit(db), Replays: postgres.NewReplayPlans(db),
		Explain: postgres.Explain, Log: slog.New(slog.DiscardHandler),
	}))
	defer server.Close()

	b := s.take("sh api", 1)[0]
	values := map[string]string{"OUTRIDER": server.URL + "/api/outrider/v1", "TOKEN": token}
	wants := []struct {
		status int
		words  string
	}{
		{http.StatusCreated, `"secret":"whsec_`},
		{http.StatusOK, `"rate_limit":20`},
		{http.StatusOK, `"state":"paused"`},
		{http.StatusNoContent, ""},
		{http.StatusOK, `"status":"succeeded"`},
		{http.StatusOK, `"timeline":[{"version":1,`},
		{http.StatusCreated, `"total":1`},
		{http.StatusAccepted, `"requested_by":"web_app for token `}, // a relay may have begun already
	}
	made := 0
	for line := range strings.Lines(strings.ReplaceAll(b.text, "\\\n", " ")) {
		words := shellWords(line)
		if len(words) == 0 {
			continue
		}
		if name, _, ok := strings.Cut(words[0], "="); ok {
			if values[name] == "" {
				s.t.Errorf("%s: no answer before has %s", b.name(), name)
			}
			continue
		}
		status, answer := s.curl(b, words, func(name string) string { return values[name] })
		if made == len(wants) {
			s.t.Fatalf("%s: more requests than the test knows: %q", b.name(), line)
		}
		if want := wants[made]; status != want.status || !strings.Contains(answer, want.words) {
			s.t.Errorf("%s: %q is answered %d %s", b.name(), line, status, answer)
		}
		made++
		var is struct {
			ID       int64
			Version  int64
			ReplayID int64 `json:"replay_id"`
		}
		if err := json.Unmarshal([]byte(answer), &is); err == nil && is.ID != 0 {
			values["WEBHOOK"], values["ETAG"] = fmt.Sprint(is.ID), fmt.Sprintf(`"%d-%d"`, is.ID, is.Version)
		} else if err == nil && is.ReplayID != 0 {
			values["REPLAY"] = fmt.Sprint(is.ReplayID)
		}
	}
	if made != len(wants) {
		s.t.Fatalf("%s: %d requests were made, want %d", b.name(), made, len(wants))
	}
	s.until("the replay by the API", 1, `SELECT count(*) FROM audit.replays WHERE replay_id = `+values["REPLAY"]+` AND state = 'finished' AND succeeded = total`)
	if n := s.count(`SELECT count(*) FROM audit.webhook_changes WHERE webhook_id = $1 AND actor LIKE 'token % (own API)'`, values["WEBHOOK"]); n != 4 {
		s.t.Errorf("%s: the history has %d changes by the token, want 4", b.name(), n)
	}
	if response, err := http.Get(server.URL + "/api/outrider/v1/openapi.json"); err != nil || response.StatusCode != http.StatusOK || response.Body.Close() != nil { //nolint:noctx // as a browser would
		s.t.Errorf("the document: %v, %v", response, err)
	}
}
