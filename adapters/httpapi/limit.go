package httpapi

import (
	"container/list"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// tooManyError refuses who comes too often.
type tooManyError struct {
	// what there is too much of.
	what string
	// after is when coming again helps.
	after time.Duration
}

// Error says when to come again.
func (e *tooManyError) Error() string {
	return fmt.Sprintf("too many %s: try again in %s s", e.what, e.retryAfter())
}

// retryAfter is for the header of this name (RFC 9110, section 10.2.3): whole
// seconds, at least one.
func (e *tooManyError) retryAfter() string {
	return strconv.FormatFloat(max(1, math.Ceil(e.after.Seconds())), 'f', 0, 64)
}

// most bounds what is remembered of addresses and of tokens: some 2 MB.
const most = 10_000

// recent remembers things by key, those used last.
type recent[K comparable, V any] struct {
	order *list.List // the one used last in front
	at    map[K]*list.Element
}

type remembered[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any]() recent[K, V] {
	return recent[K, V]{list.New(), map[K]*list.Element{}}
}

// get gives what is remembered under a key.
func (r *recent[K, V]) get(key K) (value V, ok bool) {
	e, ok := r.at[key]
	if !ok {
		return value, false
	}
	r.order.MoveToFront(e)
	return e.Value.(*remembered[K, V]).value, true //nolint:errcheck // only put fills it
}

// put remembers a value under a new key, and forgets another where there are too
// many.
func (r *recent[K, V]) put(key K, value V) {
	r.at[key] = r.order.PushFront(&remembered[K, V]{key, value})
	if oldest := r.order.Back(); len(r.at) > most {
		r.forget(oldest.Value.(*remembered[K, V]).key) //nolint:errcheck // only put fills it
	}
}

func (r *recent[K, V]) forget(key K) {
	if e, ok := r.at[key]; ok {
		r.order.Remove(e)
		delete(r.at, key)
	}
}

// guesses bounds the wrong tokens that come from an address: some at once, then
// one in a while.
type guesses struct {
	mu   sync.Mutex
	from recent[netip.Addr, *guesser]
}

type guesser struct {
	limit *rate.Limiter
	// trying counts those that are not known to be wrong yet: many at once must
	// not all pass before the first is found to be.
	trying int
}

const (
	guessesAtOnce = 10
	guessEvery    = 6 * time.Second
)

func newGuesses() *guesses { return &guesses{from: newRecent[netip.Addr, *guesser]()} }

// begin allows to try a token; end says whether it was wrong. Where wait is not
// 0 none may be tried before that.
func (g *guesses) begin(addr netip.Addr, now time.Time) (end func(wrong bool), wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	addr = household(addr)
	who, ok := g.from.get(addr)
	if !ok {
		who = &guesser{limit: rate.NewLimiter(rate.Every(guessEvery), guessesAtOnce)}
		g.from.put(addr, who)
	}
	if left := who.limit.TokensAt(now) - float64(who.trying); left < 1-1e-6 { // whole, but for what sums of fractions lose
		return nil, time.Duration(math.Ceil((1 - left) * float64(guessEvery)))
	}
	who.trying++
	return func(wrong bool) { g.end(addr, who, now, wrong) }, 0
}

func (g *guesses) end(addr netip.Addr, who *guesser, now time.Time, wrong bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	who.trying--
	if wrong {
		who.limit.ReserveN(now, 1)
	}
	if is, _ := g.from.get(addr); is == who && who.trying == 0 && who.limit.TokensAt(now) >= guessesAtOnce {
		g.from.forget(addr) // nothing to remember
	}
}

// household is whom an address belongs to: of IPv6 everybody has 2⁶⁴ (RFC 6177).
func household(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().Addr()
	}
	return addr
}

// pace bounds the requests of tokens that are good.
type pace[K comparable] struct {
	mu        sync.Mutex
	perMinute int
	of        recent[K, *rate.Limiter]
}

func newPace[K comparable](perMinute int) *pace[K] {
	return &pace[K]{perMinute: perMinute, of: newRecent[K, *rate.Limiter]()}
}

// spend counts a request of a token that is known. Where wait is not 0 it is one
// too many.
func (p *pace[K]) spend(key K, now time.Time) (known bool, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit, known := p.of.get(key)
	if !known || limit.AllowN(now, 1) {
		return known, 0
	}
	return true, time.Duration(math.Ceil((1 - limit.TokensAt(now)) / float64(limit.Limit()) * float64(time.Second)))
}

// begin counts the first request of a token.
func (p *pace[K]) begin(key K, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.of.get(key); known {
		return // by another request meanwhile
	}
	limit := rate.NewLimiter(rate.Limit(float64(p.perMinute)/60), p.perMinute)
	limit.AllowN(now, 1)
	p.of.put(key, limit)
}

// forget forgets a token that is not good any more.
func (p *pace[K]) forget(key K) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.of.forget(key)
}
