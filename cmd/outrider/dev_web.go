package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

// devWeb is the process of the pages and APIs, with a token to log in with.
type devWeb struct {
	process *childProcess
	url     string
	log     string
	tokenID domain.TokenID
	token   string
	// ended is closed when it has ended, and nil once that was told.
	ended <-chan struct{}
}

// devTokenName is the name of the token that a run makes, and revokes when it
// ends.
const devTokenName = "outrider dev"

// openWeb starts the pages and makes an administrator's token for all accounts.
func (s *sandbox) openWeb(ctx context.Context) error {
	s.web = &devWeb{log: filepath.Join(s.scratch, "web.log")}
	tokens := postgres.NewTokens(s.db)
	if err := revokeDevTokens(ctx, tokens); err != nil {
		return err
	}
	var err error
	s.web.tokenID, s.web.token, err = tokens.Create(ctx, domain.Access{Name: devTokenName, Role: domain.RoleAdministrator}, time.Time{})
	if err != nil {
		return fmt.Errorf("make a token: %w", err)
	}
	// The usual address, so that a browser's tab stays good; another one where it
	// is taken, by another run perhaps.
	for _, address := range []string{defaultWebListen, "127.0.0.1:0"} {
		if s.web.process, err = s.startSelf(s.web.log, "web", "--listen", address); err != nil {
			return fmt.Errorf("start the pages: %w", err)
		}
		s.web.ended = s.web.process.exited
		if err = s.web.await(ctx); !errors.Is(err, errPagesEnded) {
			return err
		}
	}
	return err
}

var errPagesEnded = errors.New("the pages ended at once")

// revokeDevTokens ends what a run left that was killed, on a database that is
// kept.
func revokeDevTokens(ctx context.Context, tokens *postgres.Tokens) error {
	left, err := tokens.List(ctx, 0)
	if err != nil {
		return err
	}
	for i := range left {
		if left[i].Name == devTokenName && left[i].RevokedAt.IsZero() {
			if _, err := tokens.Revoke(ctx, left[i].TokenID); err != nil {
				return err
			}
		}
	}
	return nil
}

// await waits until the pages can be served, and notes where.
func (w *devWeb) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, activeTimeout, fmt.Errorf("the pages are not ready after %s", activeTimeout))
	defer cancel()
	ticker := time.NewTicker(25 * time.Millisecond)
	defer ticker.Stop()
	for {
		if w.url = listensAt(w.log); w.url != "" && w.ready(ctx) {
			return nil
		}
		select {
		case <-ticker.C:
		case <-w.process.exited:
			return fmt.Errorf("%w: %w", errPagesEnded, w.process.failure())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *devWeb) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// closeWeb stops the pages and revokes their token.
func (s *sandbox) closeWeb(ctx context.Context) error {
	var problems []error
	if s.web.process != nil {
		if err := s.web.process.stop(stopTimeout); err != nil {
			problems = append(problems, fmt.Errorf("stop the pages: %w", err))
		}
	}
	if s.web.tokenID != 0 {
		_, err := postgres.NewTokens(s.db).Revoke(ctx, s.web.tokenID)
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// facts say where the pages are.
func (w *devWeb) facts() [][2]string {
	return [][2]string{
		{"Pages", w.url + ", its log is " + w.log},
		{"", "log in with the token " + w.token},
		{"", "or: curl -H 'api_access_token: " + w.token + "' " + w.url + "/api/v1/accounts/1/webhooks"},
	}
}
