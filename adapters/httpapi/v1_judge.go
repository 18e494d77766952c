package httpapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/outrider-relay/outrider/domain"
)

func unwrap(ctx huma.Context) (*http.Request, http.ResponseWriter) { return humago.Unwrap(ctx) }

// authorize lets an operation be carried out by those who may. An account that
// the token does not see is not there.
func (v *v1) authorize(ctx huma.Context, next func(huma.Context)) {
	operation, access := ctx.Operation(), accessOf(ctx.Context())
	may, _ := operation.Metadata[v1May].(domain.Permission) // without one it is the zero value, which no role has
	var account domain.AccountID
	if strings.Contains(operation.Path, accountParam) {
		n, err := strconv.ParseInt(ctx.Param("account_id"), 10, 64)
		if account = domain.AccountID(n); err != nil || account < domain.OperatorAccount || account == 0 || !access.Sees(account) {
			stop(ctx, newProblem(http.StatusNotFound, "there is no such account for this token"))
			return
		}
	} else if !access.Sees(0) {
		stop(ctx, newProblem(http.StatusForbidden, fmt.Sprintf("this is of all accounts, and the token is for account %d alone", access.AccountID)))
		return
	}
	if !access.May(may, account) {
		stop(ctx, newProblem(http.StatusForbidden, fmt.Sprintf("the token has the role %s, and this takes the role %s", access.Role, leastRole(may))))
		return
	}
	next(ctx)
}

// mayBeEmpty is the one parameter whose empty value means something.
const mayBeEmpty = "ordering_key"

// judgeQuery refuses what huma would pass over: what is no query, is given twice,
// is empty, or cannot be text of the database.
func (v *v1) judgeQuery(ctx huma.Context, next func(huma.Context)) {
	r, _ := unwrap(ctx)
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		stop(ctx, newProblem(http.StatusBadRequest, "the query cannot be read: names and values are escaped by % and two hexadecimal digits, and separated by &"))
		return
	}
	var reasons []v1Reason
	for name, given := range values {
		field := "query." + strings.ToValidUTF8(name, "\uFFFD")
		switch {
		case !keepable(name) || !keepable(given[0]):
			reasons = append(reasons, v1Reason{field, notKeepable})
		case len(given) > 1:
			reasons = append(reasons, v1Reason{field, "is given more than once"})
		case given[0] == "" && name != mayBeEmpty:
			reasons = append(reasons, v1Reason{field, "is empty: leave it out"})
		}
	}
	if len(reasons) > 0 {
		stop(ctx, invalid(reasons...))
		return
	}
	next(ctx)
}

const notKeepable = "is not valid UTF-8 without NUL"

// keepable reports whether PostgreSQL's text can hold s.
func keepable(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// readBody reads the body, as far as it may go, before an operation begins. One
// that takes none gets none.
func (v *v1) readBody(ctx huma.Context, next func(huma.Context)) {
	r, _ := unwrap(ctx)
	// Answers are JSON whatever else is accepted, so that huma has no choice.
	r.Header.Set("Accept", "application/json")
	body, err := io.ReadAll(r.Body)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		stop(ctx, newProblem(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxBody)))
		return
	}
	if err != nil {
		stop(ctx, newProblem(http.StatusBadRequest, "the body cannot be read to its end"))
		return
	}
	if len(body) > 0 && ctx.Operation().RequestBody == nil {
		stop(ctx, invalid(v1Reason{"body", "is not expected: this takes none"}))
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	next(ctx)
}
