package domain_test

import (
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

func TestRolesMayMoreAndMore(t *testing.T) {
	t.Parallel()
	permissions := []domain.Permission{domain.Read, domain.Operate, domain.Configure, domain.Reveal}
	for _, c := range []struct {
		role domain.Role
		may  []bool
	}{
		{domain.RoleViewer, []bool{true, false, false, false}},
		{domain.RoleOperator, []bool{true, true, false, false}},
		{domain.RoleAdministrator, []bool{true, true, true, true}},
		{"", []bool{false, false, false, false}},
		{"root", []bool{false, false, false, false}},
		{"Administrator", []bool{false, false, false, false}},
	} {
		for i, permission := range permissions {
			if got := c.role.May(permission); got != c.may[i] {
				t.Errorf("%q may %d: %v, want %v", c.role, permission, got, c.may[i])
			}
		}
		for _, none := range []domain.Permission{0, domain.Reveal + 1, -1} {
			if c.role.May(none) {
				t.Errorf("%q has the permission %d, which there is not", c.role, none)
			}
		}
	}
}

func TestAccessEndsAtTheAccount(t *testing.T) {
	t.Parallel()
	one := domain.Access{TokenID: 3, Name: "CRM sync", AccountID: 7, Role: domain.RoleAdministrator}
	all := domain.Access{TokenID: 4, Name: "ops", Role: domain.RoleViewer}
	for _, c := range []struct {
		access  domain.Access
		account domain.AccountID
		sees    bool
	}{
		{one, 7, true},
		{one, 8, false},
		{one, 0, false}, // of several accounts
		{one, domain.OperatorAccount, false},
		{all, 7, true},
		{all, 0, true},
		{all, domain.OperatorAccount, true},
		{domain.Access{}, 0, false},
		{domain.Access{}, 7, false},
		{domain.Access{AccountID: 7, Role: "root"}, 7, false},
	} {
		if got := c.access.Sees(c.account); got != c.sees {
			t.Errorf("%+v sees account %d: %v, want %v", c.access, c.account, got, c.sees)
		}
		if got := c.access.May(domain.Read, c.account); got != c.sees {
			t.Errorf("%+v may read in account %d: %v, want %v", c.access, c.account, got, c.sees)
		}
	}
	if one.May(domain.Reveal, 8) || !one.May(domain.Reveal, 7) || all.May(domain.Operate, 7) {
		t.Error("a permission does not hold in just the account, for just the role")
	}
}

func TestActorNamesTheToken(t *testing.T) {
	t.Parallel()
	if got := (domain.Access{TokenID: 3, Name: "CRM sync"}).Actor(); got != "token 3 (CRM sync)" {
		t.Errorf("got %q", got)
	}
	if got := (domain.Access{TokenID: 3}).Actor(); got != "token 3" {
		t.Errorf("got %q", got)
	}
}

func TestParseRole(t *testing.T) {
	t.Parallel()
	for _, role := range domain.Roles {
		if got, err := domain.ParseRole(string(role)); got != role || err != nil {
			t.Errorf("%q gives %q, %v", role, got, err)
		}
	}
	for _, text := range []string{"", "admin", "Viewer", "viewer "} {
		if got, err := domain.ParseRole(text); err == nil || got != "" || !strings.Contains(err.Error(), "administrator") {
			t.Errorf("%q gives %q, %v", text, got, err)
		}
	}
}

func TestCheckTokenName(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"CRM sync", "Ana Peña", strings.Repeat("é", 100)} {
		if err := domain.CheckTokenName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "  ", "a\nb", "a\x1b[31m", "a\x00", "\xff", strings.Repeat("é", 101)} {
		if err := domain.CheckTokenName(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}
