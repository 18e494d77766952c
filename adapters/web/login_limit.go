package web

import (
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// The limit of log-ins that fail, for each address: ten, then one more each six
// seconds. Tokens cannot be guessed; this keeps the database from the guessing.
const (
	loginBurst = 10
	loginEvery = 6 * time.Second
	// maxLoginAddresses bounds the memory: about 2 MB. Where more addresses
	// fail within a minute, those that were seen first are forgotten.
	maxLoginAddresses = 10_000
)

// loginLimit counts the log-ins that failed.
type loginLimit struct {
	now       func() time.Time
	mu        sync.Mutex
	addresses map[string]*rate.Limiter
	// order has the same addresses as they came.
	order []string
}

func newLoginLimit(now func() time.Time) *loginLimit {
	return &loginLimit{now: now, addresses: map[string]*rate.Limiter{}}
}

// attempt counts an attempt and gives how long the address has to wait first, 0
// where it may go on.
func (l *loginLimit) attempt(address string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, network := l.now(), networkOf(address)
	limiter := l.addresses[network]
	if limiter == nil {
		l.forget(now)
		limiter = rate.NewLimiter(rate.Every(loginEvery), loginBurst)
		l.addresses[network] = limiter
		l.order = append(l.order, network)
	}
	if limiter.AllowN(now, 1) {
		return 0
	}
	return time.Duration((1 - limiter.TokensAt(now)) * float64(loginEvery))
}

// succeeded forgets what an address did before.
func (l *loginLimit) succeeded(address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if network := networkOf(address); l.addresses[network] != nil {
		l.addresses[network] = rate.NewLimiter(rate.Every(loginEvery), loginBurst)
	}
}

// forget makes room for one more address.
func (l *loginLimit) forget(now time.Time) {
	for len(l.order) > 0 {
		oldest := l.addresses[l.order[0]]
		if len(l.order) < maxLoginAddresses && oldest.TokensAt(now) < loginBurst {
			return
		}
		delete(l.addresses, l.order[0])
		l.order = l.order[1:]
	}
}

// networkOf gives what one customer of a provider has: an IPv4 address, or the
// /64 of an IPv6 address.
func networkOf(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		network, _ := addr.Prefix(64)
		return network.String()
	}
	return addr.String()
}
