package postgres

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// tokenPrefix says what a token is for, to people and to what looks for secrets
// in files. Behind it are 32 random bytes in base64url.
const tokenPrefix = "outrider_"

// tokenLength is that of each token.
var tokenLength = len(tokenPrefix) + base64.RawURLEncoding.EncodedLen(sha256.Size)

// usedEvery is how precisely it is kept when a token was last used.
const usedEvery = time.Minute

// Tokens keeps who may come in by the pages and the APIs. It may be used by
// several goroutines.
//
// A token or session is found by its SHA-256, which is all that is kept of it.
// So no work is the same on purpose whether there is one or not: what an index
// compares are digests, and whoever tries one cannot choose how far the digest
// of what he sends agrees with one that is kept.
type Tokens struct {
	db *sql.DB

	mu sync.Mutex
	// tried is when it was last tried to note the use of a token: one that cannot
	// be noted is not tried again with each request.
	tried map[domain.TokenID]time.Time
}

// NewTokens gives the tokens of a database.
func NewTokens(db *sql.DB) *Tokens {
	return &Tokens{db: db, tried: map[domain.TokenID]time.Time{}}
}

// Token is what is known of a token: not its text, which nobody has but whoever
// was shown it.
type Token struct {
	domain.Access
	CreatedBy string
	CreatedAt time.Time
	// ExpiresAt is zero for never, RevokedAt for not, LastUsedAt, which is exact
	// to the minute, for never.
	ExpiresAt, RevokedAt, LastUsedAt time.Time
}

// TokenStates are the states of a token.
var TokenStates = []string{"active", "expired", "revoked"}

// State tells whether the token lets in at a time.
func (t *Token) State(now time.Time) string {
	switch {
	case !t.RevokedAt.IsZero():
		return TokenStates[2]
	case !t.ExpiresAt.IsZero() && !now.Before(t.ExpiresAt):
		return TokenStates[1]
	}
	return TokenStates[0]
}

const newAccessQuery = `INSERT INTO relay.tokens (hash, account_id, role, name, expires_at) VALUES ($1, $2, $3, $4, $5) RETURNING token_id`

// Create makes a token with a role in an account, or with account 0 in all of
// them, and gives its text: nobody can see that again. expires is zero for
// never. The access's TokenID is not read.
func (t *Tokens) Create(ctx context.Context, access domain.Access, expires time.Time) (domain.TokenID, string, error) {
	if _, err := domain.ParseRole(string(access.Role)); err != nil {
		return 0, "", fmt.Errorf("role: %w", err)
	}
	if err := domain.CheckTokenName(access.Name); err != nil {
		return 0, "", fmt.Errorf("name: %w", err)
	}
	token := tokenPrefix + randomText()
	var id domain.TokenID
	err := t.db.QueryRowContext(ctx, newAccessQuery, digest(token), numberOrNull(access.AccountID), string(access.Role), access.Name, nullTime(expires)).Scan(&id)
	return id, token, err
}

// randomText is 32 random bytes in base64url.
func randomText() string {
	var random [sha256.Size]byte
	_, _ = rand.Read(random[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(random[:])
}

func digest(text string) []byte {
	sum := sha256.Sum256([]byte(text))
	return sum[:]
}

const accessesQuery = `
SELECT token_id, name, coalesce(account_id, 0), role, created_by, created_at, expires_at, revoked_at, last_used_at
  FROM relay.tokens WHERE $1::bigint IN (0, account_id) ORDER BY token_id`

// List gives the tokens for an account alone, or with account 0 all there are;
// also those that let in no more.
func (t *Tokens) List(ctx context.Context, account domain.AccountID) ([]Token, error) {
	return list(ctx, t.db, func(row scanner) (token Token, err error) {
		var expires, revoked, used sql.NullTime
		err = row.Scan(&token.TokenID, &token.Name, &token.AccountID, &token.Role, &token.CreatedBy, &token.CreatedAt, &expires, &revoked, &used)
		token.CreatedAt = token.CreatedAt.UTC()
		token.ExpiresAt, token.RevokedAt, token.LastUsedAt = utcOf(expires), utcOf(revoked), utcOf(used)
		return token, err
	}, accessesQuery, int64(account))
}

// utcOf is the zero time for NULL.
func utcOf(t sql.NullTime) time.Time {
	if !t.Valid {
		return time.Time{}
	}
	return t.Time.UTC()
}

const revokeQuery = `
WITH revoked AS (UPDATE relay.tokens SET revoked_at = clock_timestamp() WHERE token_id = $1 AND revoked_at IS NULL RETURNING token_id)
SELECT EXISTS (SELECT FROM revoked) FROM relay.tokens WHERE token_id = $1`

// Revoke ends a token, and its sessions with it, from the next request on. It
// reports whether it had not been revoked before. The error is domain.ErrNoToken
// where there is no such token.
func (t *Tokens) Revoke(ctx context.Context, id domain.TokenID) (bool, error) {
	var revoked bool
	err := t.db.QueryRowContext(ctx, revokeQuery, int64(id)).Scan(&revoked)
	if errors.Is(err, sql.ErrNoRows) {
		err = domain.ErrNoToken
	}
	return revoked, err
}

const (
	accessColumns = `t.token_id, t.name, coalesce(t.account_id, 0), t.role, t.last_used_at IS NULL OR t.last_used_at < clock_timestamp() - interval '1 minute'`
	letsIn        = `t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())`
)

const authenticate = `SELECT ` + accessColumns + ` FROM relay.tokens t WHERE t.hash = $1 AND ` + letsIn

// Authenticate tells what a token lets its holder do. The error is
// domain.ErrNoToken where it lets in nobody.
func (t *Tokens) Authenticate(ctx context.Context, token string) (domain.Access, error) {
	if len(token) != tokenLength || !strings.HasPrefix(token, tokenPrefix) {
		return domain.Access{}, domain.ErrNoToken
	}
	return t.access(ctx, authenticate, digest(token))
}

// access reads what a query of accessColumns finds, and notes the use.
func (t *Tokens) access(ctx context.Context, query string, hash []byte) (domain.Access, error) {
	var access domain.Access
	var old bool
	err := t.db.QueryRowContext(ctx, query, hash).Scan(&access.TokenID, &access.Name, &access.AccountID, &access.Role, &old)
	if errors.Is(err, sql.ErrNoRows) {
		return domain.Access{}, domain.ErrNoToken
	}
	if err != nil {
		return domain.Access{}, err
	}
	if old {
		t.used(ctx, access.TokenID)
	}
	return access, nil
}

// Several processes may note the use of a token at once: one does, the others
// pass over its row. A commit that is lost loses a minute.
const noteUse = `
WITH fast AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
free AS MATERIALIZED (
  SELECT t.token_id FROM fast, relay.tokens t
   WHERE t.token_id = $1 AND (t.last_used_at IS NULL OR t.last_used_at < clock_timestamp() - interval '1 minute') FOR UPDATE OF t SKIP LOCKED)
UPDATE relay.tokens t SET last_used_at = clock_timestamp() FROM free WHERE t.token_id = free.token_id`

// noteTimeout bounds how long a request waits for that, once a minute.
const noteTimeout = time.Second

// used notes that a token is used. Nothing hangs on it: where it fails, it is
// tried again a minute later, and the request goes on.
func (t *Tokens) used(ctx context.Context, id domain.TokenID) {
	t.mu.Lock()
	now := time.Now()
	again := now.Sub(t.tried[id]) >= usedEvery
	if again {
		t.tried[id] = now
	}
	t.mu.Unlock()
	if !again {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	_, _ = t.db.ExecContext(ctx, noteUse, int64(id))
}

// SessionLength is how long a session lasts.
const SessionLength = 12 * time.Hour

// Those that are over go when others begin, some at a time: a session is
// forgotten by whoever comes next, and no login waits for another's.
const openSession = `
WITH over AS (
  DELETE FROM relay.sessions s WHERE s.hash IN (
    SELECT o.hash FROM relay.sessions o WHERE o.expires_at <= clock_timestamp() ORDER BY o.expires_at LIMIT 100 FOR UPDATE SKIP LOCKED))
INSERT INTO relay.sessions (hash, token_id, expires_at)
SELECT $2, t.token_id, least(clock_timestamp() + $3 * interval '1 second', t.expires_at) FROM relay.tokens t WHERE t.hash = $1 AND ` + letsIn

// OpenSession gives a session in place of a token: text that lets in for
// SessionLength, and no longer than the token. The error is domain.ErrNoToken
// where the token lets in nobody.
func (t *Tokens) OpenSession(ctx context.Context, token string) (string, error) {
	session := randomText()
	result, err := t.db.ExecContext(ctx, openSession, digest(token), digest(session), SessionLength.Seconds())
	if err != nil {
		return "", err
	}
	n, err := result.RowsAffected()
	if err == nil && n == 0 {
		err = domain.ErrNoToken
	}
	if err != nil {
		return "", err
	}
	return session, nil
}

const readSession = `
SELECT ` + accessColumns + ` FROM relay.sessions s JOIN relay.tokens t ON t.token_id = s.token_id
 WHERE s.hash = $1 AND s.expires_at > clock_timestamp() AND ` + letsIn

// Session tells what a session lets its holder do: what its token does. The
// error is domain.ErrNoToken where it lets in nobody.
func (t *Tokens) Session(ctx context.Context, session string) (domain.Access, error) {
	return t.access(ctx, readSession, digest(session))
}

// CloseSession ends a session. One that is none, or over, is no error.
func (t *Tokens) CloseSession(ctx context.Context, session string) error {
	_, err := t.db.ExecContext(ctx, `DELETE FROM relay.sessions WHERE hash = $1`, digest(session))
	return err
}
