package httpapi

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// IfMatch is the precondition of a change.
type IfMatch struct {
	IfMatch string `header:"If-Match" doc:"The ETag of the webhook that the change was decided on, or several, or * for any. Where the webhook has another one by now nothing is changed, and the answer is 412." example:"\"7-12\""`
}

// IfNoneMatch is the precondition of a reading.
type IfNoneMatch struct {
	IfNoneMatch string `header:"If-None-Match" doc:"The ETag of what is known already, or several, or * for any. Where it is still the same the answer is 304, without a body." example:"\"7-12\""`
}

// etagOf names a webhook as it is at its version: all that is shown of it is a
// change of its own.
func etagOf(hook *domain.Webhook) string { return fmt.Sprintf(`"%d-%d"`, hook.ID, hook.Version) }

// entityTags are of RFC 9110, section 8.8.3.
var (
	entityTag  = `(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"`
	entityTags = regexp.MustCompile(`^[ \t,]*` + entityTag + `(?:[ \t]*,[ \t]*(?:` + entityTag + `)?)*[ \t]*$`)
	oneTag     = regexp.MustCompile(entityTag)
)

// versions gives the versions of a webhook that the precondition accepts. whatever
// says that it accepts each; without a precondition it does too.
func (m IfMatch) versions(id domain.WebhookID) (versions []int64, whatever bool, err error) {
	text := strings.TrimSpace(m.IfMatch)
	if text == "" || text == "*" {
		return nil, true, nil
	}
	if !entityTags.MatchString(text) {
		return nil, false, invalid(v1Reason{"header.If-Match", `is not an entity tag, like "7-12", nor several, nor *`})
	}
	own := fmt.Sprintf(`"%d-`, id)
	for _, tag := range oneTag.FindAllString(text, -1) { // a weak one never matches (section 13.1.1)
		number, ok := strings.CutPrefix(tag, own)
		version, err := strconv.ParseInt(strings.TrimSuffix(number, `"`), 10, 64)
		if ok && err == nil {
			versions = append(versions, version)
		}
	}
	return versions, false, nil
}

// required is for what must not be done without having looked.
func (m IfMatch) required() error {
	if strings.TrimSpace(m.IfMatch) != "" {
		return nil
	}
	p := newProblem(http.StatusPreconditionRequired, "header.If-Match: is missing")
	p.Errors = []v1Reason{{"header.If-Match", "is missing"}}
	p.Advice = "Send the ETag of the webhook that you read, so that nobody else's change is lost; or * to change it whatever it is."
	return p
}

// expecting wraps a command in the precondition.
func (m IfMatch) expecting(id domain.WebhookID, command domain.WebhookCommand) (domain.WebhookCommand, error) {
	versions, whatever, err := m.versions(id)
	if err != nil || whatever {
		return command, err
	}
	return domain.ExpectVersion{Versions: versions, Command: command}, nil
}

// met reports whether what is known is still the same. Tags compare weakly
// (section 13.1.2); what is no tag is none that is known.
func (m IfNoneMatch) met(etag string) bool {
	text := strings.TrimSpace(m.IfNoneMatch)
	if text == "*" {
		return true
	}
	return slices.ContainsFunc(oneTag.FindAllString(text, -1), func(tag string) bool { return strings.TrimPrefix(tag, "W/") == etag })
}
