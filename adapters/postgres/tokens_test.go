package postgres_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outrider-relay/outrider/adapters/devpg/pgtest"
	"github.com/outrider-relay/outrider/adapters/postgres"
	"github.com/outrider-relay/outrider/domain"
)

var crm = domain.Access{Name: "CRM sync", AccountID: 7, Role: domain.RoleAdministrator}

// newToken makes a token and gives what it lets in.
func newToken(t *testing.T, tokens *postgres.Tokens, access domain.Access, expires time.Time) (domain.Access, string) {
	t.Helper()
	id, token, err := tokens.Create(t.Context(), access, expires)
	if err != nil {
		t.Fatal(err)
	}
	access.TokenID = id
	return access, token
}

func TestATokenLetsInUntilItIsRevoked(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tokens := postgres.NewTokens(db.SQL)
	access, token := newToken(t, tokens, crm, time.Time{})
	if !regexp.MustCompile(`^outrider_[A-Za-z0-9_-]{43}$`).MatchString(token) {
		t.Errorf("the token is %q", token)
	}
	if got, err := tokens.Authenticate(t.Context(), token); got != access || err != nil {
		t.Errorf("lets in %+v, %v; want %+v", got, err, access)
	}
	all, other := newToken(t, tokens, domain.Access{Name: "ops", Role: domain.RoleViewer}, time.Time{})
	if got, err := tokens.Authenticate(t.Context(), other); got != all || err != nil || other == token {
		t.Errorf("lets in %+v, %v; want %+v", got, err, all)
	}
	// What only looks like it does not, nor does the digest that is kept.
	kept := texts(t, db.SQL, `SELECT encode(hash, 'hex') FROM relay.tokens ORDER BY token_id`)[0]
	raw, err := hex.DecodeString(kept)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"", "outrider_", token[:len(token)-1], token + "A", " " + token, strings.ToUpper(token), strings.TrimPrefix(token, "outrider_"), kept, string(raw), "outrider_" + strings.Repeat("\x00", 43)} {
		if got, err := tokens.Authenticate(t.Context(), wrong); !errors.Is(err, domain.ErrNoToken) || got != (domain.Access{}) {
			t.Errorf("%q lets in %+v, %v", wrong, got, err)
		}
	}
	if revoked, err := tokens.Revoke(t.Context(), access.TokenID); !revoked || err != nil {
		t.Fatalf("revoked: %v, %v", revoked, err)
	}
	if _, err := tokens.Authenticate(t.Context(), token); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("a revoked token: %v", err)
	}
	if revoked, err := tokens.Revoke(t.Context(), access.TokenID); revoked || err != nil {
		t.Errorf("revoked again: %v, %v", revoked, err)
	}
	if _, err := tokens.Revoke(t.Context(), 999); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("one that never was: %v", err)
	}
	if _, err := tokens.Authenticate(t.Context(), other); err != nil {
		t.Errorf("the other token went with it: %v", err)
	}
}

func TestATokenExpires(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tokens := postgres.NewTokens(db.SQL)
	_, token := newToken(t, tokens, crm, time.Now().Add(time.Hour))
	session, err := tokens.OpenSession(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if got := texts(t, db.SQL, `SELECT (s.expires_at = t.expires_at)::text FROM relay.sessions s JOIN relay.tokens t USING (token_id)`); len(got) != 1 || got[0] != "true" {
		t.Errorf("the session does not end with its token: %v", got)
	}
	do(t, db.SQL, `UPDATE relay.tokens SET expires_at = clock_timestamp()`)
	if _, err := tokens.Authenticate(t.Context(), token); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("an expired token: %v", err)
	}
	if _, err := tokens.OpenSession(t.Context(), token); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("a session with an expired token: %v", err)
	}
	if _, err := tokens.Session(t.Context(), session); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("the session of an expired token: %v", err)
	}
}

func TestTokensAreRefused(t *testing.T) {
	t.Parallel()
	tokens := postgres.NewTokens(pgtest.New(t).SQL)
	for _, access := range []domain.Access{
		{Name: "x", Role: "root"}, {Name: "x"}, {Role: domain.RoleViewer}, {Name: "a\nb", Role: domain.RoleViewer},
	} {
		if _, token, err := tokens.Create(t.Context(), access, time.Time{}); err == nil || token != "" {
			t.Errorf("%+v is accepted", access)
		}
	}
	if listed, err := tokens.List(t.Context(), 0); err != nil || len(listed) != 0 {
		t.Errorf("listed are %v, %v", listed, err)
	}
}

func TestTokensAreListedWithoutTheirText(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tokens := postgres.NewTokens(db.SQL)
	begun := time.Now()
	access, token := newToken(t, tokens, crm, begun.Add(time.Hour))
	_, revoked := newToken(t, tokens, domain.Access{Name: "ops", Role: domain.RoleOperator}, time.Time{})
	if _, err := tokens.Revoke(t.Context(), access.TokenID+1); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Authenticate(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	listed, err := tokens.List(t.Context(), 0)
	if err != nil || len(listed) != 2 {
		t.Fatalf("listed are %v, %v", listed, err)
	}
	one, two := listed[0], listed[1]
	if one.Access != access || one.CreatedBy != "outrider" || one.CreatedAt.Sub(begun).Abs() > time.Minute || one.ExpiresAt.Sub(begun.Add(time.Hour)).Abs() > time.Second || one.LastUsedAt.IsZero() {
		t.Errorf("the first is %+v", one)
	}
	if one.State(begun) != "active" || one.State(begun.Add(2*time.Hour)) != "expired" || two.State(begun) != "revoked" || two.AccountID != 0 || !two.LastUsedAt.IsZero() {
		t.Errorf("they are %s and %s: %+v", one.State(begun), two.State(begun), two)
	}
	if text := fmt.Sprintf("%+v", listed); strings.Contains(text, token) || strings.Contains(text, revoked) {
		t.Error("a list shows tokens")
	}
	if listed, err := tokens.List(t.Context(), 7); err != nil || len(listed) != 1 || listed[0].TokenID != access.TokenID {
		t.Errorf("of account 7 there are %v, %v", listed, err)
	}
	// Nothing in the database is the token, or could be sent in its place.
	for _, row := range texts(t, db.SQL, `SELECT t::text FROM relay.tokens t UNION ALL SELECT s::text FROM relay.sessions s`) {
		if strings.Contains(row, strings.TrimPrefix(token, "outrider_")) {
			t.Errorf("the token is kept: %s", row)
		}
	}
}

func TestTheUseOfATokenIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tokens := postgres.NewTokens(db.SQL)
	access, token := newToken(t, tokens, crm, time.Time{})
	authenticate := func(tokens *postgres.Tokens) {
		t.Helper()
		if _, err := tokens.Authenticate(t.Context(), token); err != nil {
			t.Fatal(err)
		}
	}
	at := func() string { return texts(t, db.SQL, `SELECT coalesce(last_used_at::text, '') FROM relay.tokens`)[0] }
	authenticate(tokens)
	first := at()
	if first == "" {
		t.Fatal("the use is not noted")
	}
	authenticate(tokens)
	authenticate(postgres.NewTokens(db.SQL)) // another process
	if again := at(); again != first {
		t.Errorf("used at %s, and at %s within the minute", first, again)
	}
	do(t, db.SQL, `UPDATE relay.tokens SET last_used_at = last_used_at - interval '61 s'`)
	old := at()
	authenticate(tokens) // which tried within the minute
	if again := at(); again != old {
		t.Errorf("a process notes it twice in a minute")
	}
	authenticate(postgres.NewTokens(db.SQL))
	if again := at(); again == old {
		t.Error("the use is not noted a minute later")
	}

	// Somebody holds the row: the token lets in all the same.
	do(t, db.SQL, `UPDATE relay.tokens SET last_used_at = NULL`)
	tx, err := db.SQL.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `SELECT FROM relay.tokens WHERE token_id = $1 FOR UPDATE`, int64(access.TokenID)); err != nil {
		t.Fatal(err)
	}
	authenticate(postgres.NewTokens(db.SQL))
	if at() != "" {
		t.Error("the use is noted in spite of the lock")
	}
}

func TestASessionIsItsTokens(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tokens := postgres.NewTokens(db.SQL)
	access, token := newToken(t, tokens, crm, time.Time{})
	sessions := make([]string, 3)
	for i := range sessions {
		session, err := tokens.OpenSession(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`).MatchString(session) {
			t.Errorf("the session is %q", session)
		}
		sessions[i] = session
	}
	other := postgres.NewTokens(db.SQL) // another process
	if got, err := other.Session(t.Context(), sessions[0]); got != access || err != nil {
		t.Errorf("lets in %+v, %v; want %+v", got, err, access)
	}
	// One is not the other.
	if _, err := tokens.Authenticate(t.Context(), sessions[0]); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("a session is taken for a token: %v", err)
	}
	for _, wrong := range []string{"", token, sessions[0] + "A", "\x00"} {
		if _, err := tokens.Session(t.Context(), wrong); !errors.Is(err, domain.ErrNoToken) {
			t.Errorf("%q is taken for a session: %v", wrong, err)
		}
	}
	for _, wrong := range []string{"", sessions[0], "outrider_" + strings.Repeat("A", 43)} {
		if session, err := tokens.OpenSession(t.Context(), wrong); !errors.Is(err, domain.ErrNoToken) || session != "" {
			t.Errorf("%q opens a session: %v", wrong, err)
		}
	}
	for range 2 {
		if err := tokens.CloseSession(t.Context(), sessions[0]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tokens.Session(t.Context(), sessions[0]); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("a closed session: %v", err)
	}
	if _, err := tokens.Session(t.Context(), sessions[1]); err != nil {
		t.Errorf("another session was closed with it: %v", err)
	}
	if _, err := tokens.Revoke(t.Context(), access.TokenID); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Session(t.Context(), sessions[1]); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("the session of a revoked token: %v", err)
	}
}

func TestSessionsEndAndAreForgotten(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	tokens := postgres.NewTokens(db.SQL)
	_, token := newToken(t, tokens, crm, time.Time{})
	open := func() string {
		t.Helper()
		session, err := tokens.OpenSession(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		return session
	}
	ended := open()
	if got := texts(t, db.SQL, `SELECT (expires_at - created_at BETWEEN interval '11:59:59' AND interval '12:00:01')::text FROM relay.sessions`); got[0] != "true" {
		t.Error("a session does not last 12 hours")
	}
	do(t, db.SQL, `UPDATE relay.sessions SET expires_at = clock_timestamp()`)
	if _, err := tokens.Session(t.Context(), ended); !errors.Is(err, domain.ErrNoToken) {
		t.Errorf("a session that is over: %v", err)
	}
	do(t, db.SQL, `INSERT INTO relay.sessions (hash, token_id, expires_at) SELECT sha256(n::text::bytea), 1, clock_timestamp() FROM generate_series(1, 250) n`)
	for range 3 {
		open()
	}
	if n := texts(t, db.SQL, `SELECT count(*)::text FROM relay.sessions`)[0]; n != "3" {
		t.Errorf("%s sessions are kept, of which 3 are open", n)
	}
}

// TestTheWebNeedsNoMoreThanItsRole does as a member of outrider_web all that
// tokens take there.
func TestTheWebNeedsNoMoreThanItsRole(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	_, token := newToken(t, postgres.NewTokens(db.SQL), crm, time.Time{})
	dsn, _ := userOf(t, db, "", "outrider_web")
	web, err := postgres.Open(dsn, "web")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = web.Close() })
	tokens := postgres.NewTokens(web)
	session, err := tokens.OpenSession(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	for name, let := range map[string]func() error{
		"token":   func() error { _, err := tokens.Authenticate(t.Context(), token); return err },
		"session": func() error { _, err := tokens.Session(t.Context(), session); return err },
		"close":   func() error { return tokens.CloseSession(t.Context(), session) },
	} {
		if err := let(); err != nil && !errors.Is(err, domain.ErrNoToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if used := texts(t, db.SQL, `SELECT (last_used_at IS NOT NULL)::text FROM relay.tokens`)[0]; used != "true" {
		t.Error("the use is not noted")
	}
	if _, _, err := tokens.Create(t.Context(), crm, time.Time{}); err == nil || !strings.Contains(fmt.Sprint(postgres.Explain(err)), "lacks rights") {
		t.Errorf("outrider web may make tokens: %v", err)
	}
	hooks := postgres.NewWebhooks(web)
	hook := change(t, hooks, 7, 0, register(t, "https://example.com/hook"))
	change(t, hooks, 7, hook.ID, domain.RevealSecret{})
	change(t, hooks, 7, hook.ID, domain.DisableWebhook{Reason: "asked for"})
	enabled := change(t, hooks, 7, hook.ID, domain.EnableWebhook{})
	if _, err := hooks.Missed(t.Context(), enabled, time.Time{}); err != nil {
		t.Error(err)
	}
	if listed, err := hooks.List(t.Context(), 7); err != nil || len(listed) != 1 {
		t.Errorf("listed are %v, %v", listed, err)
	}
	if err := postgres.CheckWeb(t.Context(), web); err != nil {
		t.Errorf("the role is not enough: %v", err)
	}
}
