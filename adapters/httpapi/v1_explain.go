package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/outrider-relay/outrider/domain"
)

// explained is an error of the database that says what it means.
type explained interface {
	error
	// Advise says what to do about it, "" for nothing.
	Advise() string
	// Away reports that the database cannot serve now, whatever is asked.
	Away() bool
	// Refusal is that of a function of ours in the database, whose words the
	// error and the advice then are.
	Refusal() domain.Refusal
}

// problem gives the answer to an error. What went wrong inside is logged, and
// not told.
func (v *v1) problem(ctx context.Context, err error) *v1Problem {
	if p, ok := errors.AsType[*v1Problem](err); ok {
		return p
	}
	if wrong, ok := errors.AsType[*domain.InvalidSettingsError](err); ok {
		reasons := make([]v1Reason, len(wrong.Problems))
		for i, problem := range wrong.Problems {
			member, reason, _ := strings.Cut(problem, ": ")
			reasons[i] = v1Reason{"body." + member, reason}
		}
		return invalid(reasons...)
	}
	if taken, ok := errors.AsType[*domain.URLTakenError](err); ok {
		p := newProblem(http.StatusConflict, "body.url: "+taken.Error())
		p.Errors = []v1Reason{{"body.url", taken.Error()}}
		p.WebhookID = int64(taken.WebhookID)
		p.Advice = "Change that one, or delete it first."
		return p
	}
	if stale, ok := errors.AsType[*domain.StaleVersionError](err); ok {
		p := newProblem(http.StatusPreconditionFailed, "header.If-Match: "+stale.Error())
		p.Errors = []v1Reason{{"header.If-Match", stale.Error()}}
		p.Advice = "Read it again, and decide on what it is now."
		return p
	}
	switch {
	case errors.Is(err, domain.ErrWebhookGone):
		return newProblem(http.StatusNotFound, "there is no such webhook in the account")
	case errors.Is(err, domain.ErrNoReplay):
		return newProblem(http.StatusNotFound, "there is no such replay of the account")
	}
	meaning := err
	if v.config.Explain != nil {
		meaning = v.config.Explain(err)
	}
	var why explained
	known := errors.As(meaning, &why)
	if known {
		if p := refused(why); p != nil {
			return p
		}
	}
	id := uuid.New()
	if errors.Is(ctx.Err(), context.Canceled) { // the client left, or the process stops: what was asked for was broken off
		return away(uuid.Nil)
	}
	v.config.Log.ErrorContext(ctx, "the API could not answer", "error", err, "request", id.String())
	if known && why.Away() || ctx.Err() != nil {
		return away(id)
	}
	return failed(id)
}

// refused tells what a function in the database says, nil where none said
// anything.
func refused(why explained) *v1Problem {
	status := 0
	switch why.Refusal() {
	case domain.RefusedInvalid, domain.RefusedMissing:
		status = http.StatusUnprocessableEntity
	case domain.RefusedState:
		status = http.StatusConflict
	case domain.RefusedNot:
		return nil
	}
	p := newProblem(status, why.Error())
	p.Advice = why.Advise()
	return p
}

// away is the answer where the database cannot serve now.
func away(id uuid.UUID) *v1Problem {
	p := newProblem(http.StatusServiceUnavailable, "Outrider cannot use its database now")
	p.Advice = "Try again in some seconds. To whoever operates it, the log of outrider web says why, and outrider doctor what mends it."
	if id != uuid.Nil {
		p.Instance = "urn:uuid:" + id.String()
	}
	return p.with("Retry-After", "5")
}

// failed is the answer where something went wrong that should not.
func failed(id uuid.UUID) *v1Problem {
	p := newProblem(http.StatusInternalServerError, "Outrider could not do this; whether anything was changed is not known")
	p.Advice = "Whoever operates it finds why in the log of outrider web, under the request that instance names; outrider doctor says what is wrong with the database."
	p.Instance = "urn:uuid:" + id.String()
	return p
}
