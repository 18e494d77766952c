package httpapi

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/outrider-relay/outrider/domain"
)

// v1Base is where Outrider's own API is.
const v1Base = "/api/outrider/v1"

// v1 is Outrider's own API. What it takes and gives is said by Go types, from
// which huma makes the document, and judges requests by it.
type v1 struct {
	config *Config
	gate   *gate
	routes *routes
	api    huma.API
}

func init() {
	// huma has these for a whole program, in which nothing else uses it.
	huma.NewError = newV1Error
	huma.DefaultArrayNullable = false
	huma.ValidateStrictCasing = true
}

// addV1 adds the routes of Outrider's own API.
func (a *API) addV1() {
	v := &v1{config: &a.config, gate: a.gate, routes: &a.routes}
	v.api = humago.NewWithPrefix(v1Mux{v}, v1Base, v1Configuration())
	v.api.UseMiddleware(v.authorize, v.judgeQuery, v.readBody)
	v.addWebhooks()
	v.addActions()
	v.addEvents()
	v.addDeliveries()
	v.addChanges()
	v.addHealth()
	v.addReplays()
	v.addRelays()
	v.addDocument()
	for _, path := range []string{v1Base, v1Base + "/"} { // no routes of their own: they are where there is none
		a.routes.mux.Handle(path, v.guard(v.gated(http.HandlerFunc(v.noRoute))))
	}
}

// v1Mux registers huma's routes, each behind the gate.
type v1Mux struct{ v *v1 }

// HandleFunc implements humago.Mux.
func (m v1Mux) HandleFunc(pattern string, handler func(http.ResponseWriter, *http.Request)) {
	m.v.routes.Handle(pattern, m.v.guard(m.v.gated(http.HandlerFunc(handler))))
}

// ServeHTTP implements humago.Mux.
func (m v1Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.v.routes.ServeHTTP(w, r) }

// v1Operation describes an operation.
type v1Operation struct {
	method, path string
	id, tag      string
	// summary is one line, about what else there is to know.
	summary, about string
	// may is what it takes: in the account of the path, else in all accounts.
	may domain.Permission
	// status is that of success, 0 for 200.
	status int
	// errors are the statuses that it has beside those that all have.
	errors []int
}

// v1Add registers an operation.
func v1Add[I, O any](v *v1, o *v1Operation, handle func(context.Context, *I) (*O, error)) {
	operation := huma.Operation{
		Method: o.method, Path: o.path, OperationID: o.id, Tags: []string{o.tag},
		Summary:       o.summary,
		Description:   strings.TrimSpace(o.about + "\n\n" + v1Takes(o.may, strings.Contains(o.path, accountParam))),
		DefaultStatus: o.status,
		Errors: append([]int{
			http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed,
			http.StatusTooManyRequests, http.StatusServiceUnavailable,
		}, o.errors...),
		Security: []map[string][]string{{v1Bearer: {}}, {v1Header: {}}},
		Metadata: map[string]any{v1May: o.may},
		// The body is read and bounded before huma sees it.
		MaxBodyBytes: maxBody + 1, BodyReadTimeout: -1,
		RejectUnknownQueryParameters: true,
	}
	huma.Register(v.api, operation, func(ctx context.Context, input *I) (*O, error) {
		output, err := handle(ctx, input)
		if err != nil {
			return nil, v.problem(ctx, err)
		}
		return output, nil
	})
}

// accountParam is where the account stands in a path.
const accountParam = "{account_id}"

// v1May is under which name an operation has its permission.
const v1May = "may"

// leastRole is the first role that has a permission.
func leastRole(p domain.Permission) domain.Role {
	for _, role := range domain.Roles {
		if role.May(p) {
			return role
		}
	}
	return ""
}

func v1Takes(p domain.Permission, ofAccount bool) string {
	takes := "It takes a token with the role `" + string(leastRole(p)) + "`"
	if p != domain.Reveal && p != domain.Configure {
		takes += " or more"
	}
	if !ofAccount {
		takes += ", for all accounts"
	}
	return takes + "."
}
