package domain_test

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/outrider-relay/outrider/domain"
)

// Each refused network by its first and last address, and the neighbours just
// outside, "" where the neighbour is refused for a reason of its own or there
// is none. Written out, not computed: a wrong mask would go unseen.
func TestRefusedNetworks(t *testing.T) {
	t.Parallel()
	table := []struct {
		network, below, first, last, above, reason string
	}{
		{"0.0.0.0/8", "", "0.0.0.0", "0.255.255.255", "1.0.0.0", "this network"},
		{"10.0.0.0/8", "9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0", "private"},
		{"100.64.0.0/10", "100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0", "carrier-grade NAT"},
		{"127.0.0.0/8", "126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0", "loopback"},
		{"169.254.0.0/16", "169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0", "link-local"},
		{"172.16.0.0/12", "172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0", "private"},
		{"192.0.0.0/24", "191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0", "protocol assignments"},
		{"192.0.2.0/24", "192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0", "documentation"},
		{"192.88.99.0/24", "192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0", "6to4"},
		{"192.168.0.0/16", "192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0", "private"},
		{"198.18.0.0/15", "198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0", "benchmarking"},
		{"198.51.100.0/24", "198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0", "documentation"},
		{"203.0.113.0/24", "203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0", "documentation"},
		{"224.0.0.0/4", "223.255.255.255", "224.0.0.0", "239.255.255.255", "", "multicast"},
		{"240.0.0.0/4", "", "240.0.0.0", "255.255.255.255", "", "reserved"},
		{"::/96", "", "::", "::ffff:ffff", "::1:0:0", "unspecified"},
		{"64:ff9b::/96", "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff", "64:ff9b::", "64:ff9b::ffff:ffff", "64:ff9b::1:0:0", "NAT64"},
		{"64:ff9b:1::/48", "64:ff9b:0:ffff:ffff:ffff:ffff:ffff", "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "64:ff9b:2::", "local NAT64"},
		{"100::/64", "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "100::", "100::ffff:ffff:ffff:ffff", "100:0:0:1::", "discard"},
		{"2001::/23", "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::", "Teredo"},
		{"2001:db8::/32", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::", "documentation"},
		{"2002::/16", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::", "6to4"},
		{"3fff::/20", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::", "documentation"},
		{"5f00::/16", "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "5f01::", "segment routing"},
		{"fc00::/7", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe00::", "unique local"},
		{"fe80::/10", "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "link-local"},
		{"fec0::/10", "", "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "site-local"},
		{"ff00::/8", "", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "", "multicast"},
	}
	covered := map[string]bool{}
	for _, c := range table {
		covered[c.network] = true
	}
	source, err := os.ReadFile("address.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range regexp.MustCompile(`MustParsePrefix\("(.*?)"\)`).FindAllSubmatch(source, -1) {
		if network := string(found[1]); !covered[network] {
			t.Errorf("%s has no row in this table", network)
		}
	}
	for _, c := range table {
		t.Run(c.network, func(t *testing.T) {
			t.Parallel()
			for _, text := range []string{c.first, c.last} {
				for _, addr := range spellings(text) {
					if reason, refused := (domain.AddressPolicy{}).Refuse(addr); !refused || !strings.Contains(reason, c.reason) {
						t.Errorf("%s: refused: %t, %q; want %q", addr, refused, reason, c.reason)
					}
				}
			}
			for _, text := range []string{c.below, c.above} {
				if text == "" {
					continue
				}
				for _, addr := range spellings(text) {
					if reason, refused := (domain.AddressPolicy{}).Refuse(addr); refused {
						t.Errorf("%s is refused: %s", addr, reason)
					}
				}
			}
		})
	}
}

// spellings gives the forms under which one address may be dialled: an IPv4
// address also in an IPv6 coat, an IPv6 address also with a zone.
func spellings(text string) []netip.Addr {
	addr := netip.MustParseAddr(text)
	if addr.Is4() {
		mapped := netip.AddrFrom16(addr.As16())
		return []netip.Addr{addr, mapped, mapped.WithZone("eth0")}
	}
	return []netip.Addr{addr, addr.WithZone("eth0")}
}

func TestAddressesOfNote(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"127.0.0.1":            true, // this machine
		"::1":                  true,
		"0.0.0.0":              true, // this machine, on Linux
		"::":                   true,
		"169.254.169.254":      true, // metadata of most clouds
		"fd00:ec2::254":        true, // metadata of AWS
		"100.100.100.200":      true, // metadata of Alibaba Cloud
		"192.0.0.192":          true, // metadata of Oracle Cloud
		"::ffff:169.254.169.1": true,
		"::ffff:a00:1":         true, // 10.0.0.1
		"::7f00:1":             true, // 127.0.0.1, IPv4-compatible
		"64:ff9b::a9fe:a9fe":   true, // 169.254.169.254 through NAT64
		"2002:7f00:1::":        true, // 127.0.0.1 through 6to4
		"2001:0:7f00:1::":      true, // Teredo
		"fe80::1%eth0":         true,
		"255.255.255.255":      true,
		"1.1.1.1":              false,
		"8.8.8.8":              false,
		"93.184.216.34":        false,
		"::ffff:1.1.1.1":       false,
		"2606:4700:4700::1111": false,
		"2a00:1450:4001::200e": false,
		"2001:4860:4860::8888": false,
	} {
		if reason, refused := (domain.AddressPolicy{}).Refuse(netip.MustParseAddr(text)); refused != want {
			t.Errorf("%s: refused: %t (%s), want %t", text, refused, reason, want)
		}
	}
}

func TestRefuseTheZeroAddress(t *testing.T) {
	t.Parallel()
	policy := domain.AddressPolicy{Allow: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	if reason, refused := policy.Refuse(netip.Addr{}); !refused || reason == "" {
		t.Errorf("refused: %t, %q", refused, reason)
	}
}

func TestAllow(t *testing.T) {
	t.Parallel()
	policy := domain.AddressPolicy{Allow: []netip.Prefix{
		netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("fd12:3456::/32"),
	}}
	for text, want := range map[string]bool{
		"10.0.255.255":       true,
		"10.1.0.0":           false,
		"10.1.255.255":       false,
		"::ffff:10.1.2.3":    false,
		"::ffff:10.2.0.0":    true,
		"10.2.0.0":           true,
		"127.0.0.1":          false,
		"127.0.0.2":          true,
		"fd12:3456::1":       false,
		"fd12:3456::1%eth0":  false,
		"fd12:3457::1":       true,
		"::1":                true,
		"64:ff9b::a01:203":   true, // 10.1.2.3 through NAT64 is another way out
		"8.8.8.8":            false,
		"192.168.1.1":        true,
		"::ffff:192.168.1.1": true,
	} {
		if reason, refused := policy.Refuse(netip.MustParseAddr(text)); refused != want {
			t.Errorf("%s: refused: %t (%s), want %t", text, refused, reason, want)
		}
	}
}

// FuzzRefuse: an address and its other spellings are judged alike, and an
// allowed one is never refused.
func FuzzRefuse(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1}, 32)
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1}, 104)
	f.Add([]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 64)
	f.Fuzz(func(t *testing.T, b []byte, bits int) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		var none domain.AddressPolicy
		reason, refused := none.Refuse(addr)
		if refused != (reason != "") {
			t.Fatalf("%s: refused: %t, %q", addr, refused, reason)
		}
		for _, same := range spellings(addr.Unmap().String()) {
			if _, alike := none.Refuse(same); alike != refused {
				t.Fatalf("%s: refused: %t, %s: refused: %t", addr, refused, same, alike)
			}
		}
		if network, err := addr.Unmap().Prefix(bits); err == nil {
			if reason, refused := (domain.AddressPolicy{Allow: []netip.Prefix{network}}).Refuse(addr); refused {
				t.Fatalf("%s is allowed by %s but refused: %s", addr, network, reason)
			}
		}
		// Nothing but global unicast passes.
		if !refused && (addr.Unmap().IsPrivate() || addr.Unmap().IsLoopback() || !addr.Unmap().IsGlobalUnicast()) {
			t.Fatalf("%s passes", addr)
		}
	})
}
