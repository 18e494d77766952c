package postgres

import (
	"cmp"

	"github.com/outrider-relay/outrider/domain/audit"
)

const (
	// maxSearched bounds how many events or deliveries one page looks at for a
	// status that no index leads to, where a filter says nothing else.
	maxSearched = 20_000
	// searchChunk is how many are read at a time at most: few enough for the
	// planner to walk an index instead of sorting the history.
	searchChunk = 1000
	// searchGrowth is how many times as many are read where those before did not
	// fill a page: most often little is missing, and where much is, few reads are.
	searchGrowth = 3
)

// chunk is a stretch of a list, read whole.
type chunk[T any] struct {
	records []T
	// looked counts the events or deliveries in it; end is its last one, nil
	// where the list ends.
	looked int
	end    *audit.Cursor
}

// search fills a page with the records that are to be kept, from chunk after
// chunk.
func search[T any](f *audit.Filter, after *audit.Cursor, read func(after *audit.Cursor, n int) (chunk[T], error), keep func(*T) bool, at func(*T) audit.Cursor) (audit.Page[T], error) {
	var page audit.Page[T]
	searched := 0
	for n := f.Limit + 1; ; n = min(searchGrowth*n, searchChunk) {
		found, err := read(after, n)
		if err != nil {
			return audit.Page[T]{}, err
		}
		for i := range found.records {
			switch {
			case !keep(&found.records[i]):
			case len(page.Records) == f.Limit:
				next := at(&page.Records[f.Limit-1])
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
		if after = found.end; searched >= cmp.Or(f.Look, maxSearched) {
			page.Next, page.Searched = after, searched
			return page, nil
		}
	}
}

// endOf gives the last record's place where a query filled its limit.
func endOf[T any](records []T, n int, at func(*T) audit.Cursor) *audit.Cursor {
	if len(records) < n {
		return nil
	}
	end := at(&records[len(records)-1])
	return &end
}
