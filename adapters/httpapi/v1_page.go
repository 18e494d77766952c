package httpapi

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/outrider-relay/outrider/domain/audit"
)

// Paging is what all lists take.
type Paging struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"At most so many. There may be fewer, even none, and yet a next page: of what is searched for, one page looks at a bounded stretch." example:"50"`
	Cursor string `query:"cursor" doc:"Where the page begins: next_cursor of the page before, with the same filters. It means nothing else." maxLength:"200" example:"ZXZlbnRzIDEwMjQ"`

	url url.URL
}

// Resolve implements huma.Resolver: it keeps the URL for the link to the next
// page.
func (p *Paging) Resolve(ctx huma.Context) []error {
	p.url = ctx.URL()
	return nil
}

// v1Page is a part of a list.
type v1Page[T any] struct {
	Data []T `json:"data" doc:"The records."`
	// NextCursor is nil behind the last page.
	NextCursor *string `json:"next_cursor" doc:"The cursor of the next page; null where this is the last." example:"ZXZlbnRzIDEwMjQ"`
}

// v1List answers with a page.
type v1List[T any] struct {
	Link string `header:"Link" doc:"The next page, with rel=\"next\" (RFC 8288), where there is one." example:"</api/outrider/v1/accounts/1/events?cursor=ZXZlbnRzIDEwMjQ>; rel=\"next\""`
	Body v1Page[T]
}

// v1ListOf makes a page of records; next is "" behind the last one.
func v1ListOf[R, T any](p *Paging, records []R, show func(*R) T, next string) *v1List[T] {
	list := &v1List[T]{Body: v1Page[T]{Data: make([]T, len(records))}}
	for i := range records {
		list.Body.Data[i] = show(&records[i])
	}
	if next == "" {
		return list
	}
	list.Body.NextCursor = &next
	query := p.url.Query()
	query.Set("cursor", next)
	list.Link = "<" + p.url.EscapedPath() + "?" + query.Encode() + `>; rel="next"`
	return list
}

// historyCursor reads the cursor of a list of the history, nil for none.
func (p *Paging) historyCursor(list audit.List) (*audit.Cursor, error) {
	if p.Cursor == "" {
		return nil, nil
	}
	cursor, err := audit.ParseCursor(list, p.Cursor)
	if err != nil {
		return nil, invalid(v1Reason{"query.cursor", err.Error()})
	}
	return &cursor, nil
}

// v1ListOfHistory makes a page of one of the history.
func v1ListOfHistory[R, T any](p *Paging, page *audit.Page[R], show func(*R) T) *v1List[T] {
	next := ""
	if page.Next != nil {
		next = page.Next.String()
	}
	return v1ListOf(p, page.Records, show, next)
}

// place is a place in a list that is no history: its cursor has numbers, of
// which 0 are before the first record.
type place struct {
	list    string
	numbers []int64
}

// cursor writes the place as the history's cursors are written.
func (p place) cursor() string {
	text := p.list
	for _, n := range p.numbers {
		text += " " + strconv.FormatInt(n, 10)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(text))
}

// place reads the cursor of a list with so many numbers, which are 0 without one.
func (p *Paging) place(list string, numbers int) ([]int64, error) {
	found := make([]int64, numbers)
	if p.Cursor == "" {
		return found, nil
	}
	text, err := base64.RawURLEncoding.Strict().DecodeString(p.Cursor)
	words := strings.Split(string(text), " ")
	wrong := err != nil || words[0] != list || len(words) != numbers+1
	for i := 0; i < numbers && !wrong; i++ {
		found[i], err = strconv.ParseInt(words[i+1], 10, 64)
		wrong = err != nil
	}
	if wrong {
		return nil, invalid(v1Reason{"query.cursor", fmt.Sprintf("is no cursor of %s: take the next_cursor of the page before", list)})
	}
	return found, nil
}
