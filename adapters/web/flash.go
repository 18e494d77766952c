package web

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
)

// flash is a message for the next page, of what was just done.
type flash struct {
	// Kind is "good", "waiting" or "bad", as tints are.
	Kind string `json:"k"`
	Text string `json:"t"`
	// Link is a path of ours where more of it is, "" for none; Label is its
	// text.
	Link  string `json:"l,omitempty"`
	Label string `json:"n,omitempty"`
}

// maxFlash bounds the cookie.
const maxFlash = 2 << 10

// say keeps a message for the next page. It is signed with the session: nobody
// else puts words into our mouth.
func (p *pages) say(w http.ResponseWriter, r *request, message flash) {
	text, err := json.Marshal(message)
	if err != nil || len(text) > maxFlash || r.key == "" {
		return // a message less
	}
	encoded := base64.RawURLEncoding.EncodeToString(text)
	p.setCookie(w, flashCookie, encoded+"."+mac(r.key, "flash "+encoded))
}

// said takes the message for this page, nil for none.
func (p *pages) said(w http.ResponseWriter, r *request) *flash {
	cookie := p.cookie(r, flashCookie)
	if cookie == "" {
		return nil
	}
	p.setCookie(w, flashCookie, "")
	encoded, signature, _ := strings.Cut(cookie, ".")
	if r.key == "" || !hmac.Equal([]byte(signature), []byte(mac(r.key, "flash "+encoded))) {
		return nil
	}
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	var message flash
	if err != nil || json.Unmarshal(text, &message) != nil {
		return nil
	}
	return &message
}
