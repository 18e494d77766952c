package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof" // registers with a server that is never started; ours is private
	"net/netip"
	"time"
)

// pprofOn is off by default: a profile of the memory holds payloads and
// secrets, and who asks for one slows the relay down.
var pprofOn = &setting{
	key: "pprof_listen", usage: "address of Go's profiles, of this machine only, like 127.0.0.1:6060 (default: none)",
	set: func(c *config, text string) error {
		if _, _, err := net.SplitHostPort(text); err != nil {
			return fmt.Errorf("%q is not an address; write it like 127.0.0.1:6060", text)
		}
		c.pprofListen = text
		return nil
	},
}

// exposeFlag says that profiles are meant for other machines too.
const exposeFlag = "pprof-expose"

// checkPprof refuses an address that other machines may reach.
func checkPprof(c *check, conf config, expose bool) {
	if expose && conf.pprofListen == "" {
		c.add("--%s says who may reach an address that --%s does not give", exposeFlag, pprofOn.flag())
	}
	if conf.pprofListen == "" || expose || private(conf.pprofListen) {
		return
	}
	c.add("%s is not an address of this machine alone, like 127.0.0.1:6060. Profiles take no password, show payloads and secrets in memory, and slow the relay; give --%s where the network keeps strangers out", conf.pprofListen, exposeFlag)
}

// private reports whether only this machine reaches the address. Of names only
// localhost is known to lead here.
func private(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// listenForProfiles gives the listener of profiles, nil where there are none.
func listenForProfiles(ctx context.Context, address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &failure{fmt.Sprintf("cannot listen on %s: %v", address, err), "choose another address by --" + pprofOn.flag() + " or " + pprofOn.variable()}
	}
	return listener, nil
}

// profiles gives the server of profiles. None takes longer than a minute.
func profiles() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 70 * time.Second, IdleTimeout: time.Minute}
}
