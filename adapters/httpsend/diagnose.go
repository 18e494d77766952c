package httpsend

import (
	"bytes"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/outrider-relay/outrider/domain"
)

// The schemes.
const (
	standardScheme = "Standard Webhooks"
	chatwootScheme = "Chatwoot"
)

// Diagnosis says whether a request verifies under a scheme, and if not, why.
type Diagnosis struct {
	// Scheme is "Standard Webhooks" or "Chatwoot".
	Scheme string
	// Present says that the request has headers of the scheme.
	Present bool
	// Verified says that a receiver would take it.
	Verified bool
	// Problem is what is wrong, Advice what mends it; both are empty where it
	// is verified. Neither tells a key or the body.
	Problem, Advice string
}

// Diagnose checks a request as its receiver would, under both schemes, and
// looks for the usual slips where a signature is not right: it signs again with
// what a slip would have made of the secret or the body. now is when the
// request is judged.
func Diagnose(secret domain.Secret, header http.Header, body []byte, now time.Time) []Diagnosis {
	standard := diagnosis{
		Diagnosis: Diagnosis{Scheme: standardScheme}, secret: secret, key: secret.StandardKey(), header: header, body: body, now: now,
		id: header.Get("Webhook-Id"), timestamp: "webhook-timestamp", signature: "webhook-signature", required: []string{"webhook-id"},
		sign: func(key []byte, id, timestamp string, body []byte) string {
			return string(newMAC(key).appendStandard(nil, id, timestamp, body))
		},
		form: "v1,", otherForm: "sha256=", other: "X-Chatwoot-Signature",
	}
	chatwoot := diagnosis{
		Diagnosis: Diagnosis{Scheme: chatwootScheme}, secret: secret, key: []byte(secret.Reveal()), header: header, body: body, now: now,
		timestamp: "X-Chatwoot-Timestamp", signature: "X-Chatwoot-Signature",
		sign: func(key []byte, _, timestamp string, body []byte) string {
			return string(newMAC(key).appendChatwoot(nil, timestamp, body))
		},
		form: "sha256=", otherForm: "v1,", other: "webhook-signature",
	}
	found := []Diagnosis{standard.diagnose(), chatwoot.diagnose()}
	if signatures := strings.Fields(header.Get("Webhook-Signature")); len(signatures) > 1 && found[0].Verified && found[1].Present && !found[1].Verified {
		found[1].Problem = "the signature is not of this secret, and webhook-signature has two: the secret is being rotated"
		found[1].Advice = "until the rotation's overlap ends, X-Chatwoot-Signature is made with the old secret: check it with that one"
	}
	return found
}

// diagnosis is one scheme's.
type diagnosis struct {
	Diagnosis
	secret               domain.Secret
	key                  []byte
	header               http.Header
	body                 []byte
	now                  time.Time
	id                   string
	timestamp, signature string   // names of headers
	required             []string // others that are signed
	sign                 func(key []byte, id, timestamp string, body []byte) string
	// form is what a signature begins with; otherForm one of the other scheme,
	// whose header is other.
	form, otherForm, other string
}

func (d *diagnosis) fail(problem, advice string) Diagnosis {
	d.Problem, d.Advice = problem, advice
	return d.Diagnosis
}

func (d *diagnosis) diagnose() Diagnosis {
	var missing []string
	for _, name := range append(append([]string{}, d.required...), d.timestamp, d.signature) {
		if d.header.Get(name) == "" {
			missing = append(missing, name)
		} else {
			d.Present = true
		}
	}
	if !d.Present {
		return d.fail("the request has no header of this scheme", "")
	}
	if len(missing) > 0 {
		return d.fail("header missing: "+strings.Join(missing, ", "), "see that the capture has all headers, and that no proxy drops some on the way")
	}
	timestamp := d.header.Get(d.timestamp)
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return d.fail(d.timestamp+" is not a number of Unix seconds", "take the header as it came")
	}
	given := d.header.Get(d.signature)
	if d.matches(d.sign(d.key, d.id, timestamp, d.body)) {
		age := d.now.Sub(time.Unix(seconds, 0))
		switch {
		case age.Abs() <= Tolerance:
			d.Verified = true
			return d.Diagnosis
		case seconds > 1e11:
			return d.fail("the signature is right, but the timestamp is in milliseconds", "a sender signs Unix seconds")
		case age > 0:
			return d.fail(fmt.Sprintf("the signature is right, but the timestamp is too old: %s before the time it is checked for; %s are accepted", age.Round(time.Second), Tolerance),
				"an older capture is checked for the time it came by --at; a fresh one speaks of a wrong clock, or of somebody who sends it again")
		}
		return d.fail(fmt.Sprintf("the signature is right, but the timestamp is %s after the time it is checked for; %s are accepted", (-age).Round(time.Second), Tolerance),
			"compare the clocks of sender and receiver")
	}
	if strings.HasPrefix(given, d.otherForm) {
		return d.fail(d.signature+" has the form of the other scheme", "what begins with "+d.otherForm+" belongs into "+d.other)
	}
	return d.explain(timestamp)
}

// matches reports whether a signature is among those given.
func (d *diagnosis) matches(signature string) bool {
	for given := range strings.FieldsSeq(d.header.Get(d.signature)) {
		if hmac.Equal([]byte(given), []byte(signature)) {
			return true
		}
	}
	return false
}

// variant is what a slip makes of a secret or a body.
type variant struct {
	bytes           []byte
	problem, advice string
}

// explain finds the slip that accounts for a signature that is not right: in
// its spelling, in the body, in the secret, or in body and secret both.
func (d *diagnosis) explain(timestamp string) Diagnosis {
	right := d.sign(d.key, d.id, timestamp, d.body)
	switch given := d.header.Get(d.signature); {
	case given == strings.TrimPrefix(right, d.form):
		return d.fail("the signature is right, but for its beginning: "+d.form+" is missing", "hand the header over as it came")
	case d.Scheme == chatwootScheme && strings.EqualFold(given, right):
		return d.fail("the signature is right, but in capital letters", "compare it in small letters, as it is sent")
	}
	bodies := append([]variant{{bytes: d.body}}, signedBodies(d.body)...)
	keys := append([]variant{{bytes: d.key}}, d.signingKeys()...)
	for _, key := range keys {
		for _, body := range bodies {
			if !d.matches(d.sign(key.bytes, d.id, timestamp, body.bytes)) {
				continue
			}
			switch {
			case key.problem == "":
				return d.fail(body.problem, body.advice)
			case body.problem == "":
				return d.fail(key.problem, key.advice)
			}
			return d.fail(key.problem+"; and "+body.problem, key.advice+"; "+body.advice)
		}
	}
	return d.fail("the signature is not of this secret and this body",
		"is it the secret of this webhook, and the present one? Is the body the one that came, byte for byte, before it was parsed?")
}

const rawBody = "verify the raw bytes of the body, before anything reads or changes them"

// signedBodies are what the body may have been before it was captured.
func signedBodies(body []byte) []variant {
	var found []variant
	add := func(b []byte, problem string) {
		if !bytes.Equal(b, body) {
			found = append(found, variant{b, problem, rawBody})
		}
	}
	add(bytes.TrimRight(body, "\r\n"), "the body has a line break at its end that was not signed: the capture, or an editor, added it")
	add(append(bytes.Clone(body), '\n'), "the body lacks the line break at its end, which was signed")
	add(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), "the body begins with a byte order mark that was not signed")
	add(bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")), "the line breaks of the body were changed")
	const encoded = "the body was parsed and encoded again: spaces, escapes or the order of members differ from what was signed"
	var compact bytes.Buffer
	if json.Compact(&compact, bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))) != nil {
		return found
	}
	add(compact.Bytes(), encoded)
	var escaped bytes.Buffer
	json.HTMLEscape(&escaped, compact.Bytes())
	add(escaped.Bytes(), encoded)
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&", `\/`, "/").Replace(compact.String())
	add([]byte(plain), encoded)
	return found
}

// signingKeys are the keys that a slip in the spelling of the secret leads to.
func (d *diagnosis) signingKeys() []variant {
	const prefix = "whsec_"
	var found []variant
	text := d.secret.Reveal()
	add := func(key []byte, problem, advice string) {
		if len(key) > 0 && !bytes.Equal(key, d.key) {
			found = append(found, variant{key, problem, advice})
		}
	}
	if trimmed := strings.Trim(text, " \t\r\n\"'"); trimmed != text {
		key := []byte(trimmed)
		if d.Scheme != chatwootScheme {
			key = domain.CredentialFromText(trimmed).StandardKey()
		}
		add(key, "the secret is given with spaces or quotation marks around it", "give the secret alone")
	}
	encoded, prefixed := strings.CutPrefix(text, prefix)
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		decoded = nil
	}
	if !prefixed {
		add([]byte(prefix+text), "the secret lacks its "+prefix, "give it whole, with "+prefix+" in front")
		add(decoded, "the secret lacks its "+prefix+": what is given is the base64 behind it", "give it whole, with "+prefix+" in front")
		return found
	}
	if d.Scheme == chatwootScheme {
		add(decoded, "Chatwoot's signature is made with the text of the secret, not with "+prefix+" and its base64", "give the secret as outrider webhook show --reveal-secret tells it")
	} else {
		add([]byte(text), "it was signed with the text of the secret as the key", "of a secret that begins with "+prefix+" the key is the base64 behind it, decoded")
	}
	add([]byte(encoded), "it was signed with the text behind "+prefix+" as the key", "of a secret that begins with "+prefix+" the key is the base64 behind it, decoded")
	return found
}
