package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
)

// The headers of every answer. The pages load nothing from elsewhere and have
// no script or style within; nobody may frame them.
var headers = map[string]string{
	"Content-Security-Policy":      "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=(), payment=()",
	// same-origin, not no-referrer: with that a form's Origin is null.
	"Referrer-Policy":        "same-origin",
	"X-Content-Type-Options": "nosniff",
	"X-Frame-Options":        "DENY", // for browsers older than frame-ancestors
	// Pages have what only the session may see; static.go says otherwise for
	// its files.
	"Cache-Control": "no-store",
}

// guarded is the whole site.
func (p *pages) guarded() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		if err := p.origins.Check(r); err != nil {
			p.fail(w, &request{Request: r}, errCrossOrigin)
			return
		}
		_, pattern := p.mux.Handler(r)
		if pattern == "" {
			p.nowhere(w, r)
			return
		}
		p.mux.ServeHTTP(w, r)
	})
}

// nowhere answers what has no route: 404, or 405 with what is allowed.
func (p *pages) nowhere(w http.ResponseWriter, r *http.Request) {
	found := errNotFound
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := p.mux.Handler(other); pattern != "" {
			w.Header().Add("Allow", method)
			found = errMethod
		}
	}
	from := &request{Request: r}
	_ = p.identify(w, from) // so that the page has the way back
	p.fail(w, from, found)
}

// tokenField is the field of each form that says that our page sent it.
const tokenField = "form_token"

// formToken is the token of the forms that a key signs. It is derived from it,
// so that every process knows it, and tells nothing of it.
func formToken(key string) string { return mac(key, "form") }

// mac signs a text.
func mac(key, text string) string {
	h := hmac.New(sha256.New, []byte(key))
	h.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// maxForm bounds what is posted, in bytes.
const maxForm = 1 << 20

// form is what was posted, by field.
type form map[string][]string

// readForm reads what was posted and judges its token.
func (p *pages) readForm(w http.ResponseWriter, r *request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if kind := r.Header.Get("Content-Type"); !isForm(kind) && r.ContentLength != 0 {
		return errNoForm
	}
	if err := r.ParseForm(); err != nil {
		return badForm(err)
	}
	given := r.PostForm[tokenField]
	if r.key == "" || len(given) != 1 || !hmac.Equal([]byte(given[0]), []byte(formToken(r.key))) {
		return errNoFormToken
	}
	delete(r.PostForm, tokenField)
	r.form = form(r.PostForm)
	return nil
}

// only refuses fields that a page has not, and those that are given twice but
// may be once.
func (f form) only(once, often []string) error {
	for name, values := range f {
		switch {
		case slices.Contains(often, name):
		case !slices.Contains(once, name):
			return &failure{http.StatusBadRequest, "The form has a field that this page does not know",
				"It is called “" + shortened(name) + "”. Load the page anew and send it again."}
		case len(values) > 1:
			return &failure{http.StatusBadRequest, "The form has a field twice",
				"It is called “" + shortened(name) + "”. Load the page anew and send it again."}
		}
	}
	return nil
}

// text gives the value of a field that may be once.
func (f form) text(name string) string {
	if values := f[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// shortened is a text for a message.
func shortened(text string) string {
	const longest = 60
	if runes := []rune(text); len(runes) > longest {
		return string(runes[:longest]) + "…"
	}
	return text
}
