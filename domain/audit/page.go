package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/outrider-relay/outrider/domain"
)

// Page is a part of a list.
type Page[T any] struct {
	Records []T
	// Next is where the following page begins, nil behind the last one.
	Next *Cursor
	// Searched is how many events or deliveries were looked at where that is
	// why the page is short: there may be more behind Next.
	Searched int
}

// List is one of the lists.
type List string

// The lists that have cursors.
const (
	EventList    List = "events"
	DeliveryList List = "deliveries"
	AttemptList  List = "attempts"
	TimelineList List = "timeline"
	ChangeList   List = "changes"
)

// Cursor is a place in a list: what follows is older. What came meanwhile
// is before it.
type Cursor struct {
	List List
	// Seq is a chat event's place in the outbox; of changes it is the time, in
	// microseconds since 1970.
	Seq       int64
	WebhookID domain.WebhookID
	ReplayID  domain.ReplayID
	// Attempt is the last one of this delivery that was listed, 0 for all.
	Attempt int
	// AccountID and Version are of changes.
	AccountID domain.AccountID
	Version   int64
}

// numbers are what a list's cursor consists of.
func (c *Cursor) numbers() []*int64 {
	webhook, replay, account := (*int64)(&c.WebhookID), (*int64)(&c.ReplayID), (*int64)(&c.AccountID)
	switch c.List {
	case DeliveryList, AttemptList:
		return []*int64{&c.Seq, webhook, replay}
	case ChangeList:
		return []*int64{&c.Seq, account, &c.Version}
	default:
		return []*int64{&c.Seq}
	}
}

// String gives the cursor in letters and digits that mean nothing to others.
func (c Cursor) String() string {
	text := string(c.List)
	for _, n := range c.numbers() {
		text += " " + strconv.FormatInt(*n, 10)
	}
	if c.List == AttemptList {
		text += " " + strconv.Itoa(c.Attempt)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

var errNoCursor = errors.New("it is not a cursor; take the one that the page before ended with")

// ParseCursor reads what String gave, for a list.
func ParseCursor(of List, text string) (Cursor, error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Cursor{}, errNoCursor
	}
	words := strings.Split(string(decoded), " ")
	c := Cursor{List: List(words[0])}
	switch c.List {
	case EventList, DeliveryList, AttemptList, TimelineList, ChangeList:
	default:
		return Cursor{}, errNoCursor
	}
	if c.List != of {
		return Cursor{}, fmt.Errorf("it is a cursor of %s, not of %s", c.List, of)
	}
	numbers := c.numbers()
	attempt := int64(0)
	if c.List == AttemptList {
		numbers = append(numbers, &attempt)
	}
	if len(words) != len(numbers)+1 {
		return Cursor{}, errNoCursor
	}
	for i, n := range numbers {
		if *n, err = strconv.ParseInt(words[i+1], 10, 64); err != nil || *n < 0 && n != (*int64)(&c.AccountID) {
			return Cursor{}, errNoCursor
		}
	}
	c.Attempt = int(attempt)
	return c, nil
}

// Beyond tells whether a delivery's place comes before another one, in lists
// that are newest first.
func (c *Cursor) Beyond(other Cursor) bool {
	switch {
	case c.Seq != other.Seq:
		return c.Seq > other.Seq
	case c.WebhookID != other.WebhookID:
		return c.WebhookID > other.WebhookID
	default:
		return c.ReplayID > other.ReplayID
	}
}

// LastSeq is the newest place in the outbox that follows in a list of
// deliveries.
func (c *Cursor) LastSeq() int64 {
	if c.WebhookID == 0 && c.ReplayID == 0 {
		return c.Seq - 1
	}
	return c.Seq
}
