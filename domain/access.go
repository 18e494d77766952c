package domain

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Role says what the holder of a token may do in the accounts it is for. The
// zero value may nothing.
type Role string

// The roles, each of which may what the one before it may.
const (
	// RoleViewer looks.
	RoleViewer Role = "viewer"
	// RoleOperator keeps deliveries going: it pauses, enables, tests and replays.
	RoleOperator Role = "operator"
	// RoleAdministrator says what is delivered where, and sees secrets.
	RoleAdministrator Role = "administrator"
)

// Roles are all of them, from the one that may least.
var Roles = []Role{RoleViewer, RoleOperator, RoleAdministrator}

// ParseRole reads a role.
func ParseRole(text string) (Role, error) {
	if role := Role(text); slices.Contains(Roles, role) {
		return role, nil
	}
	return "", fmt.Errorf("%q is none of %s, %s, %s", text, RoleViewer, RoleOperator, RoleAdministrator)
}

// Permission is a kind of thing to do. The zero value is none, which no role has.
type Permission int

// The permissions.
const (
	// Read is to see webhooks, without their secrets, and the history.
	Read Permission = iota + 1
	// Operate is to pause, enable, test and replay.
	Operate
	// Configure is to add, change and delete webhooks and to rotate secrets.
	Configure
	// Reveal is to see secrets.
	Reveal
)

// May reports whether the role has a permission.
func (r Role) May(p Permission) bool {
	switch r {
	case RoleViewer:
		return p == Read
	case RoleOperator:
		return p == Read || p == Operate
	case RoleAdministrator:
		return p == Read || p == Operate || p == Configure || p == Reveal
	}
	return false
}

// TokenID identifies a token that lets in.
type TokenID int64

// Access is what a token lets its holder do. The zero value is nobody's: it
// sees no account and may nothing.
type Access struct {
	TokenID TokenID
	// Name is the token's, as whoever created it wrote it.
	Name string
	// AccountID is the account it is for, 0 for all of them.
	AccountID AccountID
	Role      Role
}

// Sees reports whether it is for an account. What is of several accounts has 0
// in its place, and is for those who see all.
func (a Access) Sees(account AccountID) bool {
	return slices.Contains(Roles, a.Role) && (a.AccountID == 0 || a.AccountID == account)
}

// May reports whether it has a permission in an account.
func (a Access) May(p Permission, account AccountID) bool {
	return a.Sees(account) && a.Role.May(p)
}

// Actor is what the history says of who asked for something.
func (a Access) Actor() string {
	if a.Name == "" {
		return fmt.Sprintf("token %d", a.TokenID)
	}
	return fmt.Sprintf("token %d (%s)", a.TokenID, a.Name)
}

// ErrNoToken refuses what is no token that lets in: unknown, revoked or expired.
// It does not say which: whoever tries tokens is to learn nothing from it.
var ErrNoToken = errors.New("no such token, or it is revoked or expired")

// longestTokenName keeps a line of the history readable.
const longestTokenName = 100

// CheckTokenName says what is wrong with a token's name, which stands in the
// history and in lists: 1 to 100 characters on one line.
func CheckTokenName(name string) error {
	switch {
	case !utf8.ValidString(name):
		return errors.New("is not valid UTF-8")
	case strings.TrimSpace(name) == "":
		return errors.New("is empty: say who or what the token is for")
	case utf8.RuneCountInString(name) > longestTokenName:
		return fmt.Errorf("has %d characters; %d are accepted", utf8.RuneCountInString(name), longestTokenName)
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("has a character that cannot be printed on one line")
	}
	return nil
}
