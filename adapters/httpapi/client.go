package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// ClientAddr gives the address of who sent a request: the connection's, or
// behind a trusted proxy the last in X-Forwarded-For that is no trusted proxy's.
// What stands before that in the header is the client's own word. The zero value
// where there is none.
func ClientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	addr, ok := parseAddr(r.RemoteAddr)
	if !ok || !contains(trusted, addr) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		before, ok := parseAddr(strings.TrimSpace(hop))
		if !ok {
			break // the proxy did not write this
		}
		if addr = before; !contains(trusted, addr) {
			break
		}
	}
	return addr
}

// parseAddr reads an address with or without a port.
func parseAddr(text string) (netip.Addr, bool) {
	if both, err := netip.ParseAddrPort(text); err == nil {
		return both.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap().WithZone(""), err == nil
}

func contains(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}
