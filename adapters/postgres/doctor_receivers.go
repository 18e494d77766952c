package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"github.com/lib/pq"
)

// receiversQuery reads the webhooks whose breakers are open, the longest first:
// how many, some of them, and since when the first is.
const receiversQuery = `
SELECT count(*), coalesce((array_agg(w.id ORDER BY w.breaker_opened_at, w.id))[:$1::int], '{}'), extract(epoch FROM clock_timestamp() - min(w.breaker_opened_at))
  FROM relay.webhooks w WHERE w.breaker_opened_at IS NOT NULL`

// receiversNamed is how many webhooks are named.
const receiversNamed = 5

// lookAtReceivers tells of those that get probes only.
func lookAtReceivers(ctx context.Context, p *patient) error {
	var n int
	var ids pq.Int64Array
	var oldest sql.NullFloat64
	if err := p.row(ctx, receiversQuery, []any{receiversNamed}, &n, &ids, &oldest); err != nil {
		return err
	}
	if n == 0 {
		p.add(Healthy, "no receiver is down: every circuit breaker is closed", "")
		return nil
	}
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = strconv.FormatInt(id, 10)
	}
	more := ""
	if n > len(ids) {
		more = " and others"
	}
	p.add(Warning, fmt.Sprintf("%s down, and %s probes only: %s%s; the first since %s",
		counted(n, "receiver is", "receivers are"), map[bool]string{true: "gets", false: "get"}[n == 1], "webhook "+strings.Join(names, ", "), more, ago(fromSeconds(oldest.Float64))),
		fmt.Sprintf("what comes for them waits, and goes out when a probe is answered; see why: outrider audit attempts --status failed --webhook %d", ids[0]))
	return nil
}
