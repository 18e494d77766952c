package chatwoot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// API reads an installation's API with a user's access token. It follows no
// redirect: the token is for this host alone.
type API struct {
	base   *url.URL
	token  string
	client *http.Client
}

// maxAnswer bounds an answer in bytes: thousands of webhooks.
const maxAnswer = 32 << 20

// NewAPI makes a reader. timeout bounds each request, its answer included.
func NewAPI(base *url.URL, token string, timeout time.Duration) *API {
	return &API{base, token, &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Chatwoot names the header with underscores, which nginx drops unless it is
// told otherwise; Rails reads the other spelling as the same.
const (
	tokenHeader       = "api_access_token"
	tokenHeaderDashed = "Api-Access-Token"
)

// Webhooks lists the webhooks of an account. An error is an *Error.
func (a *API) Webhooks(ctx context.Context, account int64) ([]Webhook, error) {
	status, header, body, err := a.get(ctx, account, tokenHeader)
	if err == nil && status == http.StatusUnauthorized && strings.Contains(string(body), "sign in") {
		status, header, body, err = a.get(ctx, account, tokenHeaderDashed)
	}
	if err != nil {
		return nil, a.explain(ctx, err)
	}
	if status != http.StatusOK {
		return nil, a.explainStatus(account, status, header, body)
	}
	var answer struct {
		Payload *struct {
			Webhooks []row `json:"webhooks"`
		} `json:"payload"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Payload == nil || answer.Payload.Webhooks == nil {
		return nil, &Error{
			Problem: fmt.Sprintf("%s answers with something that is not a list of webhooks (%s)", a.base.Host, kind(header, body)),
			Advice:  "is this the address of Chatwoot itself, with no other page before its API?",
		}
	}
	hooks := make([]Webhook, len(answer.Payload.Webhooks))
	for i := range hooks {
		hooks[i] = answer.Payload.Webhooks[i].webhook()
		if hooks[i].AccountID != account {
			return nil, &Error{Problem: fmt.Sprintf("asked for the webhooks of account %d, %s answers with one of account %d", account, a.base.Host, hooks[i].AccountID), Advice: "is this the address of Chatwoot itself?"}
		}
	}
	return hooks, nil
}

func (a *API) get(ctx context.Context, account int64, tokenName string) (int, http.Header, []byte, error) {
	address := a.base.JoinPath("api", "v1", "accounts", fmt.Sprint(account), "webhooks").String()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return 0, nil, nil, err
	}
	request.Header[tokenName] = []string{a.token} // not by Set, which would spell it anew
	request.Header.Set("Accept", "application/json")
	response, err := a.client.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response.StatusCode, response.Header, body, err
}

// explainStatus says what an answer other than 200 means, by what Chatwoot's
// controllers answer.
func (a *API) explainStatus(account int64, status int, header http.Header, body []byte) error {
	said := message(body)
	problem := fmt.Sprintf("account %d: Chatwoot at %s answers %d", account, a.base.Host, status)
	if said != "" {
		problem += ": " + said
	}
	refuse := func(problem, advice string) error { return &Error{problem, advice, account} }
	const token = "use the access token of an administrator of the account: Chatwoot shows it below Profile Settings"
	switch {
	case status == http.StatusUnauthorized && strings.Contains(said, "sign in"):
		return refuse(problem, "the token did not reach Chatwoot: let the proxy before it pass the header api_access_token on (nginx: underscores_in_headers on)")
	case status == http.StatusUnauthorized && strings.Contains(said, "suspended"):
		return refuse(problem, "a suspended account sends no webhooks; leave it out")
	case status == http.StatusUnauthorized:
		return refuse(problem, token)
	case status == http.StatusForbidden:
		return refuse(problem, "the account's plan has no API; read the table instead: --chatwoot-database")
	case status == http.StatusNotFound:
		return refuse(problem, "is there such an account, and is this the address of Chatwoot itself?")
	case status == http.StatusTooManyRequests:
		return refuse(problem, "try again in a minute")
	case status >= 300 && status < 400:
		return refuse(problem+", which leads to "+brief(header.Get("Location")), "give the address that it leads to: the token is not sent on by itself")
	case status >= 500:
		return refuse(problem, "Chatwoot's log tells more; try again")
	}
	return refuse(problem, "is this the address of Chatwoot itself?")
}

// message is what an answer says in words, empty where that is no JSON.
func message(body []byte) string {
	var answer struct {
		Error   string   `json:"error"`
		Errors  []string `json:"errors"`
		Message string   `json:"message"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return ""
	}
	return brief(strings.Join(append([]string{answer.Error, answer.Message}, answer.Errors...), " "))
}

// brief makes a few words of what somebody else wrote.
func brief(text string) string {
	const longest = 200
	if text = strings.Join(strings.Fields(text), " "); len(text) > longest {
		text = text[:longest]
	}
	return strings.ToValidUTF8(text, "")
}

// kind says what sort of thing an answer is.
func kind(header http.Header, body []byte) string {
	if len(body) == 0 {
		return "an empty answer"
	}
	media, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	if media == "" {
		media = http.DetectContentType(body)
	}
	return brief(media)
}

// explain says why there is no answer.
func (a *API) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	host := a.base.Host
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return &Error{Problem: fmt.Sprintf("the host %q is unknown", dns.Name), Advice: "check the address of Chatwoot, and this machine's name servers"}
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return &Error{Problem: fmt.Sprintf("Chatwoot at %s does not answer within %s", host, a.client.Timeout), Advice: "is it running, and is a firewall in between?"}
	}
	unknown, isUnknown := errors.AsType[x509.UnknownAuthorityError](err)
	_, isHost := errors.AsType[x509.HostnameError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isRecord := errors.AsType[tls.RecordHeaderError](err)
	isRecord = isRecord || errors.Is(err, http.ErrSchemeMismatch)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Error{Problem: host + " refuses connections", Advice: "is Chatwoot running, and is the port right?"}
	case isUnknown:
		return &Error{Problem: fmt.Sprintf("the certificate of %s is from an unknown authority (%v)", host, unknown), Advice: "name the authority's certificate by the variable SSL_CERT_FILE"}
	case isHost:
		return &Error{Problem: fmt.Sprintf("the certificate of %s is for another host", host), Advice: "use the host of the certificate"}
	case isInvalid:
		return &Error{Problem: fmt.Sprintf("the certificate of %s is not valid: %v", host, invalid), Advice: "renew it, and check this machine's clock"}
	case isRecord:
		return &Error{Problem: host + " does not speak TLS", Advice: "is it http:// instead of https://, or another port?"}
	}
	// The text names the URL, which has no secret, and not the header.
	return &Error{Problem: fmt.Sprintf("no answer of Chatwoot at %s: %s", host, brief(err.Error())), Advice: "try again"}
}
