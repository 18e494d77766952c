package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/outrider-relay/outrider/domain"
	"github.com/outrider-relay/outrider/migrations"
	"github.com/outrider-relay/outrider/relay"
)

// Error is what went wrong with the database, in words, and what mends it. It
// never quotes a password.
type Error struct {
	// Problem is one line, Advice what to do about it: a command where there
	// is one. Advice may be empty.
	Problem, Advice string
	cause           error
}

// Error gives the problem.
func (e *Error) Error() string { return e.Problem }

// Unwrap gives what PostgreSQL, its driver or the network said.
func (e *Error) Unwrap() error { return e.cause }

// Advise gives the advice, which may be empty.
func (e *Error) Advise() string { return e.Advice }

// Away reports that the database cannot serve now, whatever is asked of it: it
// cannot be reached, takes no connections or no writes, or is too busy. It may
// later.
func (e *Error) Away() bool {
	if pg := pq.As(e.cause); pg != nil {
		class := pg.Code.Class()
		return class == pqerror.ClassConnectionException || class == pqerror.ClassInsufficientResources || class == pqerror.ClassTransactionRollback ||
			isCode(e.cause, "25006", "55P03", "57014", "57P01", "57P02", "57P03", "57P05", "25P03")
	}
	_, isNet := errors.AsType[net.Error](e.cause)
	return isNet || isReadOnlySession(e.cause) || slices.ContainsFunc([]error{
		ErrStandby, driver.ErrBadConn, io.ErrUnexpectedEOF, io.EOF, syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EPIPE,
		net.ErrClosed, os.ErrDeadlineExceeded, context.DeadlineExceeded,
	}, func(target error) bool { return errors.Is(e.cause, target) })
}

// Refusal says whether, and why, a function of Outrider in the database refused
// what was asked of it. The problem and the advice are its own then, and may be
// told to whoever asked.
func (e *Error) Refusal() domain.Refusal {
	pg := pq.As(e.cause)
	if pg == nil || pg.Routine != raised {
		return domain.RefusedNot
	}
	switch pg.Code {
	case pqerror.InvalidParameterValue:
		return domain.RefusedInvalid
	case pqerror.NoDataFound:
		return domain.RefusedMissing
	case pqerror.ObjectNotInPrerequisiteState:
		return domain.RefusedState
	default:
		return domain.RefusedNot
	}
}

// raised is the routine of the server that PL/pgSQL's RAISE is.
const raised = "exec_stmt_raise"

// Explain turns an error of the database into an *Error. One that is none, or
// whose meaning is not known here, comes back as it is; so does nil.
func Explain(err error) error { return ExplainAt("", err) }

// ExplainAt is Explain with the database URL that was used, for the names in
// problem and advice.
func ExplainAt(dsn string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if _, done := errors.AsType[*Error](err); done {
		return err
	}
	at := placeOf(dsn)
	var problem, advice string
	if pg := pq.As(err); pg != nil {
		problem, advice = at.explainState(pg)
	} else if problem, advice = at.explainCondition(err); problem == "" {
		problem, advice = at.explainNetwork(err)
	}
	if problem == "" {
		return err
	}
	return &Error{problem, advice, err}
}

// place is where a database URL points to, in words for messages.
type place struct{ server, database, user string }

func placeOf(dsn string) place {
	p := place{"the database server", "the database", "<user>"}
	config, err := pq.NewConfig(dsn)
	if dsn == "" || err != nil {
		return p
	}
	if strings.HasPrefix(config.Host, "/") {
		p.server = "PostgreSQL at the socket in " + config.Host
	} else {
		p.server = "PostgreSQL at " + net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))
	}
	if len(config.Multi) > 0 {
		p.server = "PostgreSQL at the servers of the database URL"
	}
	if config.Database != "" {
		p.database = "database " + strconv.Quote(config.Database)
	}
	if config.User != "" {
		p.user = config.User
	}
	return p
}

const migrateCommand = "run: outrider migrate"

// explainCondition explains the conditions that this package checks for itself.
func (p place) explainCondition(err error) (problem, advice string) {
	switch {
	case errors.Is(err, migrations.ErrNewer):
		return err.Error(), "install a newer version of outrider; the schema only goes forward"
	case errors.Is(err, ErrNotMigrated):
		return err.Error(), migrateCommand
	case errors.Is(err, ErrStandby):
		return "the database is read-only: a standby in recovery, or set to read-only transactions",
			"use the URL of the primary; with several hosts in the URL add target_session_attrs=read-write"
	case errors.Is(err, ErrUnsafe):
		return err.Error() + ": an attempt on record might be forgotten",
			"set fsync = on in postgresql.conf"
	case errors.Is(err, ErrEncoding):
		return err.Error(), "create the database with: CREATE DATABASE name ENCODING 'UTF8' TEMPLATE template0"
	case errors.Is(err, ErrVersion):
		return err.Error(), "use PostgreSQL 14 or newer"
	case errors.Is(err, ErrRights):
		return fmt.Sprintf("user %q lacks rights: %v", p.user, err), p.grant("outrider_relay")
	case errors.Is(err, ErrWebRights):
		return fmt.Sprintf("user %q lacks rights: %v", p.user, err), p.grant(webRole)
	case errors.Is(err, ErrPooler):
		return explainPooler(err)
	case errors.Is(err, ErrIdentity):
		return "the database is not the one that the relay's history in it belongs to: a restored dump, or a copy, or it went through pg_upgrade",
			"if relays shall work on this one from now on, and none on the one it was taken from, run: outrider adopt"
	case errors.Is(err, relay.ErrAnotherServer):
		return err.Error(), "the relay begins again there"
	}
	return "", ""
}

// Where PostgreSQL names something of ours that is not there, the schema is
// missing or old.
var ours = regexp.MustCompile(`\b(outbox|relay|audit)\b`)

// explainState explains what the server answered, by its SQLSTATE (PostgreSQL
// manual, appendix A).
func (p place) explainState(err *pq.Error) (problem, advice string) {
	switch err.Code {
	case pqerror.InvalidPassword:
		return fmt.Sprintf("%s refuses the password of user %q", p.server, p.user), "check the password in the database URL, or the .pgpass file"
	case pqerror.InvalidAuthorizationSpecification:
		return p.explainRefused(err)
	case pqerror.InvalidCatalogName:
		return fmt.Sprintf("%s does not exist at %s", p.database, strings.TrimPrefix(p.server, "PostgreSQL at ")),
			"check the name in the database URL, or create it: CREATE DATABASE name ENCODING 'UTF8'"
	case pqerror.UndefinedTable, pqerror.UndefinedColumn, pqerror.UndefinedFunction, pqerror.InvalidSchemaName:
		if ours.MatchString(err.Message) {
			return p.database + " has no schema of Outrider, or an older one: " + err.Message, migrateCommand
		}
	case pqerror.InsufficientPrivilege:
		return p.explainRights(err)
	case pqerror.ReadOnlySQLTransaction:
		return p.explainCondition(ErrStandby)
	case pqerror.TooManyConnections:
		advice = "end idle connections, or raise max_connections"
		if strings.Contains(err.Message, "for role") || strings.Contains(err.Message, "for database") {
			advice = "end idle connections, or raise the CONNECTION LIMIT of the role or database"
		}
		return fmt.Sprintf("%s has no connection left: %s", p.server, err.Message), advice
	case pqerror.CannotConnectNow:
		return fmt.Sprintf("%s takes no connections now: %s", p.server, err.Message), "try again when it is up"
	case pqerror.AdminShutdown, pqerror.CrashShutdown, pqerror.IdleSessionTimeout, pqerror.IdleInTransactionSessionTimeout:
		return fmt.Sprintf("%s ended the connection: %s", p.server, err.Message), "try again"
	case pqerror.InvalidSQLStatementName, pqerror.DuplicatePstatement:
		return explainPooler(err)
	case pqerror.ProtocolViolation:
		if strings.Contains(err.Message, "startup parameter") {
			return explainPooler(err)
		}
	case pqerror.LockNotAvailable:
		return "another transaction holds a lock for too long: " + err.Message, "try again; pg_stat_activity shows who holds it"
	case pqerror.QueryCanceled:
		advice = "it took longer than it may, since the server is slow or waits; or somebody cancelled it"
		if strings.Contains(err.Message, "statement timeout") {
			advice = "statement_timeout is too short for it: see ALTER ROLE … SET and ALTER DATABASE … SET"
		}
		return "the statement was cancelled: " + err.Message, advice
	case pqerror.DiskFull:
		return p.explainFull(err)
	case pqerror.TRSerializationFailure, pqerror.TRDeadlockDetected:
		return "transactions got in each other's way: " + err.Message, "try again"
	}
	if strings.Contains(err.Hint, "free disk space") { // a quota, or a limit of the process
		return p.explainFull(err)
	}
	if err.Hint != "" || err.Routine == raised {
		return err.Message, err.Hint
	}
	return "", ""
}

// explainFull tells of a server that cannot write any more.
func (p place) explainFull(err *pq.Error) (problem, advice string) {
	return fmt.Sprintf("the disk of %s is full: %s", p.server, err.Message), "make room there; what was committed is safe, the rest is tried again"
}

// explainRefused tells the ways apart in which a server refuses a user.
func (p place) explainRefused(err *pq.Error) (problem, advice string) {
	switch {
	case strings.Contains(err.Message, "pg_hba.conf"):
		advice = "allow the address, user and database in the server's pg_hba.conf, and reload it"
		if strings.Contains(err.Message, "no encryption") || strings.Contains(err.Message, "SSL off") {
			advice += "; or connect with sslmode=require, if only encrypted connections are allowed"
		}
	case strings.Contains(err.Message, "does not exist"):
		advice = fmt.Sprintf("check the user in the database URL, or create it: CREATE ROLE %s LOGIN PASSWORD '…'", roleName(p.user))
	case strings.Contains(err.Message, "not permitted to log in"):
		advice = fmt.Sprintf("use a role that may log in: CREATE ROLE me LOGIN PASSWORD '…' IN ROLE %s", roleName(p.user))
	default:
		advice = "check user and password in the database URL"
	}
	return fmt.Sprintf("%s refuses the connection: %s", p.server, err.Message), advice
}

// explainRights names the role whose rights are missing.
func (p place) explainRights(err *pq.Error) (problem, advice string) {
	problem = fmt.Sprintf("user %q lacks rights: %s", p.user, err.Message)
	role := "outrider_relay"
	switch {
	case strings.Contains(err.Message, "to create role"), strings.Contains(err.Message, "CREATEROLE"):
		return problem, "let an administrator create them: CREATE ROLE " + strings.Join(migrations.Roles, "; CREATE ROLE ") + "; GRANT outrider_views TO " + roleName(p.user)
	case strings.Contains(err.Message, "for database"):
		return problem, fmt.Sprintf("as the database's owner: GRANT CREATE ON DATABASE name TO %s", roleName(p.user))
	case strings.Contains(err.Message, "must be owner"), strings.Contains(err.Message, "must be member"), strings.Contains(err.Message, "must be able to SET ROLE"):
		return problem, "migrate as the role that made the schema"
	case strings.Contains(err.Message, "schema audit"), strings.Contains(err.Message, "for view"):
		role = "outrider_auditor"
	case strings.Contains(err.Message, "for function"), strings.Contains(err.Message, "for table tokens"):
		role = "outrider_operator"
	case strings.Contains(err.Message, "schema outbox"):
		role = "outrider_producer"
	}
	return problem, p.grant(role)
}

func (p place) grant(role string) string {
	advice := fmt.Sprintf("as an administrator: GRANT %s TO %s", role, roleName(p.user))
	if role == "outrider_relay" {
		advice += "; for all but serve, outrider_operator is enough"
	}
	return advice
}

func explainPooler(err error) (problem, advice string) {
	return "a pooler in transaction mode stands between here and PostgreSQL: " + err.Error(),
		"use a URL that goes to PostgreSQL itself, or to a pooler in session mode; producers may keep the other one"
}

var plainRole = regexp.MustCompile(`^([a-z_][a-z0-9_]*|<user>)$`)

// roleName quotes a role's name where SQL needs it.
func roleName(name string) string {
	if plainRole.MatchString(name) {
		return name
	}
	return pq.QuoteIdentifier(name)
}

// explainNetwork explains why there is no connection, or no more.
func (p place) explainNetwork(err error) (problem, advice string) {
	if isReadOnlySession(err) {
		return p.explainNoPrimary(err)
	}
	if problem, advice = p.explainTLS(err); problem != "" {
		return problem, advice
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		if dns.IsNotFound {
			return fmt.Sprintf("the database host %q is unknown", dns.Name), "check the host in the database URL"
		}
		return fmt.Sprintf("the database host %q cannot be looked up: %s", dns.Name, dns.Err), "check the machine's name servers"
	}
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return p.server + " refuses connections", "is the server running, and are host and port right?"
	case errors.Is(err, syscall.ENOENT) && isNet:
		return p.server + " does not exist", "is the server running, and is its socket there?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return p.server + " cannot be reached", "check the network and the host in the database URL"
	case isNet && timeout.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return p.server + " does not answer", "is a firewall in between, and are host and port right?"
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, net.ErrClosed):
		return "the connection to " + p.server + " broke", "try again; the server's log tells more"
	}
	return "", ""
}

// isReadOnlySession reports a server that target_session_attrs passed over, by
// the driver's words: there is no other sign.
func isReadOnlySession(err error) bool {
	return strings.Contains(err.Error(), "session is read-only") || strings.Contains(err.Error(), "server is in hot standby mode")
}

// explainNoPrimary tells what each server of the database URL said.
func (p place) explainNoPrimary(err error) (problem, advice string) {
	said := []string{err.Error()}
	for wrapped := err; wrapped != nil; wrapped = errors.Unwrap(wrapped) {
		if each, ok := wrapped.(interface{ Unwrap() []error }); ok {
			said = said[:0]
			for _, one := range each.Unwrap() {
				said = append(said, strings.TrimPrefix(one.Error(), "connecting to "))
			}
		}
	}
	return fmt.Sprintf("%s: none takes writes (%s)", p.server, strings.Join(said, "; ")),
		"is the primary down, and no standby promoted yet? A relay goes on when one is"
}

func (p place) explainTLS(err error) (problem, advice string) {
	unknown, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, isHost := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, pq.ErrSSLNotSupported):
		return p.server + " does not speak TLS", "turn TLS on in the server; on a trusted network add sslmode=disable to the database URL"
	case isUnknown:
		return fmt.Sprintf("the certificate of %s is from an unknown authority (%v)", p.server, unknown), "name the authority's certificate in the database URL: sslrootcert=FILE"
	case isHost:
		return fmt.Sprintf("the certificate of %s is for another host", p.server), "use the host name of the certificate, or sslmode=verify-ca"
	case isInvalid:
		return fmt.Sprintf("the certificate of %s is not valid: %v", p.server, invalid), "renew it, and check this machine's clock"
	case isRecord:
		return p.server + " does not speak TLS as expected", "is this PostgreSQL's port?"
	}
	return "", ""
}

// isCode reports whether the server answered with one of the SQLSTATEs.
func isCode(err error, codes ...string) bool {
	pg := pq.As(err)
	return pg != nil && slices.Contains(codes, string(pg.Code))
}

// isUniqueViolation reports a second row of a key: of the named constraint or
// index, or of any where none is named.
func isUniqueViolation(err error, constraints ...string) bool {
	pg := pq.As(err, pqerror.UniqueViolation)
	return pg != nil && (len(constraints) == 0 || slices.Contains(constraints, pg.Constraint))
}

// isStaleSeal reports a seal that does not go on where its chain ends: its
// number is taken, or it has none, since the seal before it is not there.
func isStaleSeal(err error) bool {
	pg := pq.As(err, pqerror.NotNullViolation)
	return isUniqueViolation(err, "seals_pkey") || pg != nil && pg.Table == "seals" && pg.Column == "no"
}

// isDenied reports a right that is missing.
func isDenied(err error) bool { return isCode(err, "42501") }

// isUndefined reports a table, column or function that is not there.
func isUndefined(err error) bool { return isCode(err, "42P01", "42703", "42883", "3F000") }

// isLockTimeout reports a lock that did not come within lock_timeout, or at
// once where that was asked for.
func isLockTimeout(err error) bool { return isCode(err, "55P03") }

// isSerialization reports what running the transaction again may mend.
func isSerialization(err error) bool { return isCode(err, "40001", "40P01") }

// isInUse reports that somebody is at work on what was to be changed.
func isInUse(err error) bool { return isCode(err, "55006") }
