package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// problemType is the media type of an error (RFC 9457, section 3).
const problemType = "application/problem+json"

// v1Problem is what every error is answered with: the problem details of
// RFC 9457.
type v1Problem struct {
	Type     string     `json:"type" doc:"Always about:blank: status and title say what kind of problem it is (RFC 9457, section 4.2.1)." example:"about:blank"`
	Title    string     `json:"title" doc:"The status in words." example:"Unprocessable Entity"`
	Status   int        `json:"status" doc:"The HTTP status." example:"422"`
	Detail   string     `json:"detail" doc:"What is wrong, for people." example:"body.timeout: 90s is not within 1s to 30s"`
	Advice   string     `json:"advice,omitempty" doc:"What to do about it, where there is more to say." example:"Enable it first."`
	Errors   []v1Reason `json:"errors,omitempty" doc:"What is wrong with the request, by field."`
	Instance string     `json:"instance,omitempty" doc:"Of a 5xx: the request, as the log of outrider web names it." format:"uri" example:"urn:uuid:0199d4c2-8a71-7d10-b3a5-5f0c8a1d2e4f"`
	// WebhookID is the one that has the URL already.
	WebhookID int64 `json:"webhook_id,omitempty" doc:"Of a URL that is taken: the webhook of the account that has it." example:"7"`

	header http.Header
}

// v1Reason is what is wrong with one field.
type v1Reason struct {
	Field  string `json:"field" doc:"Where: path, query, header or body, and the names below it." example:"body.timeout"`
	Reason string `json:"reason" doc:"What is wrong there. What was sent is not repeated: it may be a secret." example:"90s is not within 1s to 30s"`
}

// newProblem gives a problem without fields.
func newProblem(status int, detail string) *v1Problem {
	return &v1Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// invalid gives the problem of a request whose fields are wrong.
func invalid(reasons ...v1Reason) *v1Problem {
	p := newProblem(http.StatusUnprocessableEntity, "")
	p.Errors = reasons
	p.tell()
	return p
}

// toldReasons is how many reasons stand in the detail.
const toldReasons = 3

// tell makes the detail of the reasons, which come by field.
func (p *v1Problem) tell() {
	slices.SortStableFunc(p.Errors, func(a, b v1Reason) int { return strings.Compare(a.Field, b.Field) })
	p.Errors = slices.Compact(p.Errors)
	lines := make([]string, 0, toldReasons+1)
	for i, r := range p.Errors {
		if i == toldReasons {
			lines = append(lines, fmt.Sprintf("and %d more", len(p.Errors)-i))
			break
		}
		lines = append(lines, r.Field+": "+r.Reason)
	}
	p.Detail = strings.Join(lines, "; ")
}

// with sets a header of the answer.
func (p *v1Problem) with(name, value string) *v1Problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.header.Set(name, value)
	return p
}

// Error implements error.
func (p *v1Problem) Error() string { return p.Detail }

// GetStatus implements huma.StatusError.
func (p *v1Problem) GetStatus() int { return p.Status }

// GetHeaders implements huma.HeadersError.
func (p *v1Problem) GetHeaders() http.Header { return p.header }

// ContentType implements huma.ContentTypeFilter.
func (p *v1Problem) ContentType(string) string { return problemType }

// write answers with the problem.
func (p *v1Problem) write(w http.ResponseWriter) {
	header := w.Header()
	for name, values := range p.header {
		header[name] = values
	}
	header.Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client may have left
}

// newV1Error makes a problem of what huma says is wrong with a request. Values
// are left out, which it would repeat: one may be a secret.
func newV1Error(status int, message string, errs ...error) huma.StatusError {
	p := newProblem(status, message)
	for _, err := range errs {
		if detail, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			p.Errors = append(p.Errors, reasonOf(detail))
		} else if err != nil {
			p.Errors = append(p.Errors, v1Reason{"body", err.Error()})
		}
	}
	if len(p.Errors) > 0 {
		p.tell()
	}
	return p
}

// reasonOf says what huma says, in this API's words.
func reasonOf(d *huma.ErrorDetail) v1Reason {
	r := v1Reason{d.Location, d.Message}
	switch name, missing := strings.CutPrefix(d.Message, "expected required property "); {
	case missing:
		r = v1Reason{d.Location + "." + strings.TrimSuffix(name, " to be present"), "is missing"}
	case d.Message == "unknown query parameter", d.Message == "unexpected property":
		r.Reason = "is not known here"
	case d.Message == "invalid integer":
		r.Reason = "is not a whole number"
	case d.Message == "invalid boolean":
		r.Reason = "is neither true nor false"
	case strings.HasPrefix(d.Message, "invalid date/time for format"):
		r.Reason = notATime
	case strings.HasPrefix(d.Message, "unknown content type"):
		r = v1Reason{"header.Content-Type", "is not application/json"}
	}
	return r
}

const notATime = "is not a time in RFC 3339, like 2026-07-01T12:00:00Z"
