package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// The members of these bodies stand in Chatwoot's order.
type (
	payload[T any] struct {
		Payload T `json:"payload"`
	}
	webhooksBody struct {
		Webhooks []chatwootWebhook `json:"webhooks"`
	}
	webhookBody struct {
		Webhook chatwootWebhook `json:"webhook"`
	}
	chatwootWebhook struct {
		ID            domain.WebhookID `json:"id"`
		Name          *string          `json:"name"`
		URL           string           `json:"url"`
		AccountID     domain.AccountID `json:"account_id"`
		Subscriptions []string         `json:"subscriptions"`
		Secret        string           `json:"secret"`
		Inbox         *chatwootInbox   `json:"inbox,omitempty"`
	}
	chatwootInbox struct {
		ID int64 `json:"id"`
		// Name is null: only the chat system knows it.
		Name *string `json:"name"`
	}
	// errorBody is Chatwoot's for one error, errorsBody that of its log-in,
	// invalidBody that of a record that is not valid, and statusBody that of
	// Rails itself.
	errorBody struct {
		Error string `json:"error"`
	}
	errorsBody struct {
		Errors []string `json:"errors"`
	}
	invalidBody struct {
		Message    string   `json:"message"`
		Attributes []string `json:"attributes"`
	}
	statusBody struct {
		Status int    `json:"status"`
		Error  string `json:"error"`
	}
)

// secretMask stands in the place of a secret.
const secretMask = "********"

func showChatwoot(hook *domain.Webhook, masked bool) chatwootWebhook {
	s := &hook.Settings
	shown := chatwootWebhook{ID: hook.ID, URL: s.URL, AccountID: hook.AccountID, Subscriptions: s.Subscriptions, Secret: hook.Secret.Reveal()}
	if s.Name != "" {
		shown.Name = &s.Name
	}
	if problem := hook.Problem(); problem != "" {
		shown.Name = &problem // Chatwoot's answer has no other place for it
	}
	if s.Subscriptions == nil {
		shown.Subscriptions = []string{} // of settings that cannot be read
	}
	if s.InboxID != 0 {
		shown.Inbox = &chatwootInbox{ID: s.InboxID}
	}
	if masked {
		shown.Secret = secretMask
	}
	return shown
}

// answerJSON writes an answer. It may hold a secret: nobody is to keep it.
func answerJSON(w http.ResponseWriter, status int, body any) {
	text, _ := json.Marshal(body) // texts and numbers: cannot fail
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

// answerHead is the answer without a body.
func answerHead(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) }

// refuseChatwoot answers who has no token that lets in.
func refuseChatwoot(w http.ResponseWriter, _ *http.Request, err error) {
	switch many, _ := errors.AsType[*tooManyError](err); {
	case many != nil:
		answerJSON(w, http.StatusTooManyRequests, errorBody{"Retry later: " + many.Error()})
	case errors.Is(err, errUnavailable):
		unavailable(w, err.Error())
	case errors.Is(err, errNoCredentials):
		answerJSON(w, http.StatusUnauthorized, errorsBody{[]string{"You need to sign in or sign up before continuing."}})
	default:
		answerJSON(w, http.StatusUnauthorized, errorBody{errBadToken.Error()})
	}
}

// answerError answers what an action gives as an error.
func (c *chatwoot) answerError(w http.ResponseWriter, r *http.Request, err error) {
	bad, _ := errors.AsType[*badRequestError](err)
	tooLarge, _ := errors.AsType[*http.MaxBytesError](err)
	wrong, _ := errors.AsType[invalidRecord](err)
	switch {
	case errors.Is(err, errNotFound), errors.Is(err, domain.ErrWebhookGone):
		answerJSON(w, http.StatusNotFound, errorBody{errNotFound.Error()})
	case errors.Is(err, errOtherAccount), errors.Is(err, errNotAdministrator):
		answerJSON(w, http.StatusUnauthorized, errorBody{err.Error()})
	case errors.Is(err, errParamMissing):
		answerJSON(w, http.StatusUnprocessableEntity, errorBody{err.Error()})
	case wrong != nil:
		answerJSON(w, http.StatusUnprocessableEntity, wrong.body())
	case bad != nil:
		answerJSON(w, http.StatusBadRequest, statusBody{http.StatusBadRequest, "Bad Request: " + bad.reason})
	case tooLarge != nil:
		answerJSON(w, http.StatusRequestEntityTooLarge, statusBody{http.StatusRequestEntityTooLarge, fmt.Sprintf("Payload Too Large: %d bytes are accepted", tooLarge.Limit)})
	default:
		if r.Context().Err() == nil { // else the client left
			c.Log.ErrorContext(r.Context(), "a request cannot be answered", "method", r.Method, "route", r.Pattern, "error", err)
		}
		unavailable(w, "the webhooks cannot be read or changed now")
	}
}

// unavailable answers where the database does not, which seldom lasts.
func unavailable(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "1")
	answerJSON(w, http.StatusServiceUnavailable, errorBody{"Retry later: " + why})
}

// The members that are named in what is wrong, and what is said of them.
const (
	urlMember           = "url"
	subscriptionsMember = "subscriptions"
	inboxMember         = "inbox_id"

	urlInvalid    = "Url is invalid"
	urlTaken      = "Url has already been taken"
	invalidEvents = "Subscriptions Invalid events"
)

// invalidRecord is all that is wrong with a webhook, as an error.
type invalidRecord []problem

type problem struct{ member, message string }

// Error joins the messages.
func (i invalidRecord) Error() string { return i.body().Message }

func (i invalidRecord) body() invalidBody {
	var messages, attributes []string
	for _, p := range i {
		messages = append(messages, p.message)
		attributes = append(attributes, p.member)
	}
	return invalidBody{strings.Join(messages, ", "), attributes}
}

func (i invalidRecord) has(member string) bool {
	return slices.ContainsFunc(i, func(p problem) bool { return p.member == member })
}

// sorted gives them in the order of the checks in Chatwoot's model: first the
// URL's, then the subscriptions'.
func (i invalidRecord) sorted() invalidRecord {
	rank := func(p problem) int {
		return slices.Index([]string{urlMember, subscriptionsMember, p.member}, p.member)
	}
	slices.SortStableFunc(i, func(a, b problem) int { return rank(a) - rank(b) })
	return i
}

// add adds what the domain says of settings, of each member once; false where it
// is another error. Where Chatwoot says the same, it is in its words; what only
// we refuse says why.
func (i *invalidRecord) add(err error, url string) bool {
	settings, ok := errors.AsType[*domain.InvalidSettingsError](err)
	if !ok {
		return false
	}
	for _, text := range settings.Problems {
		member, rest, _ := strings.Cut(text, ": ")
		if i.has(member) {
			continue
		}
		message := strings.ToUpper(member[:1]) + strings.ReplaceAll(strings.TrimSuffix(member[1:], "_id"), "_", " ")
		switch {
		case member == urlMember && !strings.Contains(url, "http://") && !strings.Contains(url, "https://"):
			message = urlInvalid
		case member == urlMember:
			message = urlInvalid + ": " + rest
		case member == subscriptionsMember:
			message = invalidEvents
		case strings.HasPrefix(rest, "is "):
			message += " " + rest
		default:
			message += " is invalid: " + rest
		}
		*i = append(*i, problem{member, message})
	}
	return true
}
