package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// webConfig is what outrider web is told.
type webConfig struct {
	listen string
	// public is where people and programs reach it, nil where that is where it
	// listens.
	public *url.URL
	// mask hides secrets also where Chatwoot's API has them.
	mask bool
	// proxies are the networks whose word counts for who sent a request.
	proxies []netip.Prefix
}

// defaultWebListen is private: what is sent there is not encrypted.
const defaultWebListen = "127.0.0.1:7581"

var (
	webListenOn = &setting{
		key: "web_listen", short: "listen", usage: "address of the pages and APIs (default " + defaultWebListen + ")",
		set: func(c *config, text string) error {
			if _, _, err := net.SplitHostPort(text); err != nil {
				return fmt.Errorf("%q is not an address; write it like %s or :7581", text, defaultWebListen)
			}
			c.web.listen = text
			return nil
		},
	}
	publicURL = &setting{
		key: "public_url", usage: "where people reach the pages, like https://hooks.example.com (default: where it listens)",
		set: func(c *config, text string) error {
			public, err := parsePublicURL(text)
			c.web.public = public
			return err
		},
	}
	maskSecrets = &setting{
		key: "mask_secrets", yes: true, usage: "hide webhooks' secrets in Chatwoot's API too, where they are shown to administrators (default false)",
		set: func(c *config, text string) (err error) {
			if c.web.mask, err = strconv.ParseBool(text); err != nil {
				return fmt.Errorf("%q is neither true nor false", text)
			}
			return nil
		},
	}
	trustedProxies = &setting{
		key: "trusted_proxy", usage: "networks of proxies whose X-Forwarded-For says who sent a request, comma-separated (default: none)",
		set: func(c *config, text string) (err error) {
			c.web.proxies, err = parsePrefixes(text)
			return err
		},
	}
)

// parsePublicURL reads a URL that has a scheme and a host and nothing else: the
// pages are at the root of their site. No error quotes it: it may hold a
// password.
func parsePublicURL(text string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSuffix(text, "/"))
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, errors.New("is not a URL like https://hooks.example.com")
	case u.User != nil:
		return nil, errors.New("has a user and password, which it must not: people log in with tokens")
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		return nil, errors.New("has more than a host: the pages are at the root of a host of their own, like https://hooks.example.com")
	}
	return u, nil
}

// plainFlag says that tokens and secrets may be sent without encryption.
const plainFlag = "allow-plain-http"

// checkPlain refuses to be reached from elsewhere without encryption.
func (w *webConfig) checkPlain(c *check, allowed bool) {
	if allowed {
		return
	}
	switch {
	case w.public != nil && w.public.Scheme == "https":
	case w.public != nil && !private(net.JoinHostPort(w.public.Hostname(), "0")):
		c.add("--%s begins with http://: tokens and secrets would be sent without encryption. Put a proxy in front that speaks TLS and give its https URL, or give --%s where the network keeps strangers out", publicURL.flag(), plainFlag)
	case !private(w.listen):
		c.add("%s is not an address of this machine alone, like %s: tokens and secrets would be sent without encryption. Put a proxy in front that speaks TLS and give its https URL by --%s, or give --%s where the network keeps strangers out", w.listen, defaultWebListen, publicURL.flag(), plainFlag)
	}
}
