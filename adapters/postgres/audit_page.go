package postgres

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
	Next *AuditCursor
	// Searched is how many events or deliveries were looked at where that is
	// why the page is short: there may be more behind Next.
	Searched int
}

// AuditList is one of the lists.
type AuditList string

// The lists that have cursors.
const (
	EventList    AuditList = "events"
	DeliveryList AuditList = "deliveries"
	AttemptList  AuditList = "attempts"
	TimelineList AuditList = "timeline"
	ChangeList   AuditList = "changes"
)

// AuditCursor is a place in a list: what follows is older. What came meanwhile
// is before it.
type AuditCursor struct {
	List AuditList
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
func (c *AuditCursor) numbers() []*int64 {
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
func (c AuditCursor) String() string {
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

// ParseAuditCursor reads what String gave, for a list.
func ParseAuditCursor(of AuditList, text string) (AuditCursor, error) {
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return AuditCursor{}, errNoCursor
	}
	words := strings.Split(string(decoded), " ")
	c := AuditCursor{List: AuditList(words[0])}
	switch c.List {
	case EventList, DeliveryList, AttemptList, TimelineList, ChangeList:
	default:
		return AuditCursor{}, errNoCursor
	}
	if c.List != of {
		return AuditCursor{}, fmt.Errorf("it is a cursor of %s, not of %s", c.List, of)
	}
	numbers := c.numbers()
	attempt := int64(0)
	if c.List == AttemptList {
		numbers = append(numbers, &attempt)
	}
	if len(words) != len(numbers)+1 {
		return AuditCursor{}, errNoCursor
	}
	for i, n := range numbers {
		if *n, err = strconv.ParseInt(words[i+1], 10, 64); err != nil || *n < 0 && n != (*int64)(&c.AccountID) {
			return AuditCursor{}, errNoCursor
		}
	}
	c.Attempt = int(attempt)
	return c, nil
}

// beyond tells whether a delivery's place comes before another one, in lists
// that are newest first.
func (c *AuditCursor) beyond(other AuditCursor) bool {
	switch {
	case c.Seq != other.Seq:
		return c.Seq > other.Seq
	case c.WebhookID != other.WebhookID:
		return c.WebhookID > other.WebhookID
	default:
		return c.ReplayID > other.ReplayID
	}
}

// lastSeq is the newest place in the outbox that follows in a list of
// deliveries.
func (c *AuditCursor) lastSeq() int64 {
	if c.WebhookID == 0 && c.ReplayID == 0 {
		return c.Seq - 1
	}
	return c.Seq
}

const (
	// maxSearched bounds how many events or deliveries one page looks at for a
	// status that no index leads to: about a second's reading.
	maxSearched = 20_000
	// searchChunk is how many are read at a time: few enough for the planner
	// to walk an index instead of sorting the history.
	searchChunk = 1000
)

// chunk is a stretch of a list, read whole.
type chunk[T any] struct {
	records []T
	// looked counts the events or deliveries in it; end is its last one, nil
	// where the list ends.
	looked int
	end    *AuditCursor
}

// search fills a page with the records that are to be kept, from chunk after
// chunk.
func search[T any](limit int, after *AuditCursor, read func(after *AuditCursor, n int) (chunk[T], error), keep func(*T) bool, at func(*T) AuditCursor) (Page[T], error) {
	var page Page[T]
	searched := 0
	for n := limit + 1; ; n = searchChunk {
		found, err := read(after, n)
		if err != nil {
			return Page[T]{}, err
		}
		for i := range found.records {
			switch {
			case !keep(&found.records[i]):
			case len(page.Records) == limit:
				next := at(&page.Records[limit-1])
				page.Next = &next
				return page, nil
			default:
				page.Records = append(page.Records, found.records[i])
			}
		}
		searched += found.looked
		if found.end == nil {
			return page, nil
		}
		if after = found.end; searched >= maxSearched {
			page.Next, page.Searched = after, searched
			return page, nil
		}
	}
}

// endOf gives the last record's place where a query filled its limit.
func endOf[T any](records []T, n int, at func(*T) AuditCursor) *AuditCursor {
	if len(records) < n {
		return nil
	}
	end := at(&records[len(records)-1])
	return &end
}
