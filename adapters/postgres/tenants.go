package postgres

import (
	"context"
	"database/sql"
	"errors"

	"github.com/outrider-relay/outrider/domain"
)

// Tenant is a role that is bound to an account, whose history it sees.
type Tenant struct {
	Role      string
	AccountID domain.AccountID
	// Sees says what comes of the binding.
	Sees TenantSight
}

// TenantSight is what a bound role sees.
type TenantSight string

// What a bound role sees: its account, nothing since there is no such role or
// it is not in the group outrider_tenant, or all accounts, since it may read
// them anyway.
const (
	SeesAccount   TenantSight = "its account"
	SeesNoRole    TenantSight = "nothing: there is no such role"
	SeesNoGroup   TenantSight = "nothing: it is not a member of outrider_tenant"
	SeesAllAnyway TenantSight = "all accounts: it is a superuser, the owner, or a member of another group of Outrider's that reads them"
)

// sightQuery is TenantSight of role $1 as a number, 0 to 3. It says the same as
// relay.may_see_all() of whoever logs in.
const sightQuery = `
SELECT CASE WHEN r.oid IS NULL THEN 1
            WHEN pg_has_role(r.oid, 'outrider_auditor', 'MEMBER') OR pg_has_role(r.oid, 'outrider_operator', 'MEMBER') OR pg_has_role(r.oid, 'outrider_relay', 'MEMBER') OR pg_has_role(r.oid, 'outrider_web', 'MEMBER')
              OR pg_has_role(r.oid, (SELECT c.relowner FROM pg_class c WHERE c.oid = 'relay.log'::regclass), 'MEMBER') THEN 3
            WHEN NOT pg_has_role(r.oid, 'outrider_tenant', 'MEMBER') THEN 2
            ELSE 0 END
  FROM (VALUES ($1::text)) n (role) LEFT JOIN pg_roles r ON r.rolname = n.role`

// SightOf says what a role would see if it were bound.
func SightOf(ctx context.Context, db *sql.DB, role string) (TenantSight, error) {
	var n int
	err := db.QueryRowContext(ctx, sightQuery, role).Scan(&n)
	if err != nil {
		return "", err
	}
	return []TenantSight{SeesAccount, SeesNoRole, SeesNoGroup, SeesAllAnyway}[n], nil
}

// RoleName writes the name of a role as SQL wants it.
func RoleName(role string) string { return roleName(role) }

// BindTenant lets a role see the history of an account. A role has one account:
// where it is bound already the binding is left as it is, and given.
func BindTenant(ctx context.Context, db *sql.DB, role string, account domain.AccountID) (bound domain.AccountID, err error) {
	// A binding that was there is read by the second arm's snapshot, one that
	// comes at this moment by the next try.
	for range 3 {
		err = db.QueryRowContext(ctx, `
WITH made AS (INSERT INTO relay.tenant_roles (role, account_id) VALUES ($1::name, $2::bigint) ON CONFLICT (role) DO NOTHING RETURNING account_id)
SELECT account_id FROM made UNION ALL SELECT account_id FROM relay.tenant_roles WHERE role = $1::name`, role, int64(account)).Scan(&bound)
		if !errors.Is(err, sql.ErrNoRows) {
			break
		}
	}
	return bound, err
}

// UnbindTenant takes a binding back, also of a role that is gone. It reports
// whether there was one.
func UnbindTenant(ctx context.Context, db *sql.DB, role string) (bool, error) {
	result, err := db.ExecContext(ctx, `DELETE FROM relay.tenant_roles WHERE role = $1::name`, role)
	if err != nil {
		return false, err
	}
	n, err := result.RowsAffected()
	return n > 0, err
}

// Tenants lists the bindings by account and role.
func Tenants(ctx context.Context, db *sql.DB) ([]Tenant, error) {
	tenants, err := list(ctx, db, func(row scanner) (t Tenant, err error) {
		err = row.Scan(&t.Role, &t.AccountID)
		return t, err
	}, `SELECT role::text, account_id FROM relay.tenant_roles ORDER BY account_id, role`)
	for i := range tenants {
		if err != nil {
			break
		}
		tenants[i].Sees, err = SightOf(ctx, db, tenants[i].Role)
	}
	return tenants, err
}
