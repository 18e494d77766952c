// Package chatwoot reads the webhooks that a Chatwoot installation has, so that
// they can be moved over: from its API, or from its database. It changes
// nothing there.
package chatwoot

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
)

// Webhook is a webhook as Chatwoot keeps it.
type Webhook struct {
	ID        int64
	AccountID int64
	// Name is nil where there is none.
	Name *string
	URL  string
	// Subscriptions are event names; Chatwoot sends nothing where there are
	// none.
	Subscriptions []string
	// InboxID is 0 for none. Chatwoot keeps it, and does not filter by it.
	InboxID int64
	// OfInbox marks a row of type inbox_type: Chatwoot sends it nothing. The API
	// does not tell.
	OfInbox bool
	// Secret is empty for rows of versions before 4.11.2. From the database it
	// may be an envelope: see domain.EncryptedByRails.
	Secret string
}

// Error is what went wrong, in words, and what mends it. It never quotes a
// token or a password.
type Error struct {
	Problem, Advice string
	// Account is the one that it is about, 0 where it is about all.
	Account int64
}

// Error gives the problem.
func (e *Error) Error() string { return e.Problem }

// row is the form of a webhook in the API and, as to_jsonb gives it, of a row
// of the table webhooks. Members that a version of Chatwoot does not have are
// missing.
type row struct {
	ID            int64    `json:"id"`
	AccountID     int64    `json:"account_id"`
	Name          *string  `json:"name"`
	URL           string   `json:"url"`
	Subscriptions []string `json:"subscriptions"`
	Secret        string   `json:"secret"`
	Inbox         struct {
		ID int64 `json:"id"`
	} `json:"inbox"`
	InboxID int64 `json:"inbox_id"`
	Type    int   `json:"webhook_type"`
}

func (r *row) webhook() Webhook {
	return Webhook{
		ID: r.ID, AccountID: r.AccountID, Name: r.Name, URL: r.URL, Subscriptions: r.Subscriptions,
		InboxID: max(r.Inbox.ID, r.InboxID), OfInbox: r.Type == 1, Secret: r.Secret,
	}
}

// ParseURL reads the address of an installation, like https://chat.example.com.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return nil, errors.New("is not an address like https://chat.example.com")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("has more than an address: write it like https://chat.example.com")
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	return u, nil
}

// decode reads a row; a database may hold what no version of Chatwoot writes.
func decode(text []byte) (row, error) {
	var r row
	err := json.Unmarshal(text, &r)
	return r, err
}
