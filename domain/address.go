package domain

import "net/netip"

// AddressPolicy says which addresses a webhook may live at. The zero value
// refuses every address that is not public.
type AddressPolicy struct {
	// Allow lists networks that are accepted although they are refused below.
	Allow []netip.Prefix
}

// refusedNetworks are the address blocks that no webhook on the public
// internet has: IANA's special-purpose registries (RFC 6890 and its updates)
// with the translation prefixes through which they could be reached.
var refusedNetworks = []struct {
	prefix netip.Prefix
	reason string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network (RFC 791)"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private (RFC 1918)"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT (RFC 6598)"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback (RFC 1122)"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local, cloud metadata (RFC 3927)"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private (RFC 1918)"},
	{netip.MustParsePrefix("192.0.0.0/24"), "IETF protocol assignments (RFC 6890)"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay anycast (RFC 7526)"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private (RFC 1918)"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking (RFC 2544)"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation (RFC 5737)"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast (RFC 5771)"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved, broadcast (RFC 1112)"},
	{netip.MustParsePrefix("::/96"), "unspecified, loopback, IPv4-compatible (RFC 4291)"},
	{netip.MustParsePrefix("64:ff9b::/96"), "NAT64 (RFC 6052)"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local NAT64 (RFC 8215)"},
	{netip.MustParsePrefix("100::/64"), "discard (RFC 6666)"},
	{netip.MustParsePrefix("2001::/23"), "IETF protocol assignments, Teredo (RFC 2928)"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation (RFC 3849)"},
	{netip.MustParsePrefix("2002::/16"), "6to4 (RFC 3056)"},
	{netip.MustParsePrefix("3fff::/20"), "documentation (RFC 9637)"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing (RFC 9602)"},
	{netip.MustParsePrefix("fc00::/7"), "unique local, cloud metadata (RFC 4193)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local (RFC 4291)"},
	{netip.MustParsePrefix("fec0::/10"), "site-local (RFC 3879)"},
	{netip.MustParsePrefix("ff00::/8"), "multicast (RFC 4291)"},
}

// Refuse reports whether the address may not be dialled, and why. An IPv4
// address in an IPv6 coat is judged as the IPv4 address; zones are ignored.
func (p AddressPolicy) Refuse(addr netip.Addr) (reason string, refused bool) {
	if !addr.IsValid() {
		return "not an IP address", true
	}
	addr = addr.Unmap().WithZone("")
	for _, allowed := range p.Allow {
		if allowed.Contains(addr) {
			return "", false
		}
	}
	for _, network := range refusedNetworks {
		if network.prefix.Contains(addr) {
			return network.reason, true
		}
	}
	return "", false
}
