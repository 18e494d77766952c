package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/migrations"
)

// webReadiness answers /readyz: whether pages and APIs can be served now. Anybody
// may ask, so the database is asked once a second at most, and what is wrong is
// told in words that name no server and no user; the log has them.
type webReadiness struct {
	conf   config
	db     *sql.DB
	logger *slog.Logger

	mu    sync.Mutex
	asked time.Time
	err   error
}

// readyFor is how long an answer of the database counts.
const readyFor = time.Second

func newWebReadiness(conf config, db *sql.DB, logger *slog.Logger) *webReadiness {
	return &webReadiness{conf: conf, db: db, logger: logger}
}

// ServeHTTP implements http.Handler.
func (r *webReadiness) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	answer := struct {
		Ready    bool     `json:"ready"`
		Problems []string `json:"problems,omitempty"`
	}{Ready: true}
	if err := r.check(request.Context()); err != nil {
		answer.Ready, answer.Problems = false, []string{readyProblem(err)}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// check asks the database, unless it was asked a moment ago. Those who ask
// meanwhile wait for the answer.
func (r *webReadiness) check(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.asked) >= readyFor {
		// Not the context of who asks: the answer is for others too.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		err := postgres.CheckWebNow(ctx, r.db)
		if err != nil && (r.err == nil || readyProblem(err) != readyProblem(r.err)) {
			r.logger.Error("not ready", "problem", readyProblem(err), "error", explainAt(r.conf.databaseURL, err))
		} else if err == nil && r.err != nil {
			r.logger.Info("ready again")
		}
		r.asked, r.err = time.Now(), err
	}
	return r.err
}

func readyProblem(err error) string {
	switch {
	case errors.Is(err, postgres.ErrNotMigrated):
		return "the database's schema is older than this binary; run: outrider migrate"
	case errors.Is(err, migrations.ErrNewer):
		return "the database's schema is newer than this binary"
	case errors.Is(err, postgres.ErrWebRights):
		return "the database user lacks the rights of outrider_web"
	}
	return "the database does not answer"
}
