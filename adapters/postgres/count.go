package postgres

// Count is a number counted up to a bound: More says that there are more.
type Count struct {
	N    int
	More bool
}

// countLimit bounds what is counted.
const countLimit = 10_000

func countOf(n int) Count { return Count{min(n, countLimit), n > countLimit} }

// String gives "12", or "more than 10,000".
func (c Count) String() string {
	if c.More {
		return "more than " + grouped(int64(c.N))
	}
	return grouped(int64(c.N))
}
