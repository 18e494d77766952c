package devpg

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Free ports are taken from below the ranges from which Linux (32768) and
// macOS (49152) draw the local ports of outgoing connections. Otherwise, while
// the server is down for a restart, such a connection could take its port; one
// to the port itself would even connect to itself.
const (
	firstPort = 15000
	lastPort  = 32000
)

// freePort finds a port that nobody listens on at this moment.
func freePort(ctx context.Context) (int, error) {
	var listening net.ListenConfig
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort) //nolint:gosec // a port number is no secret
		listener, err := listening.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		return port, listener.Close()
	}
	return 0, errors.New("no free port on 127.0.0.1 in 100 tries")
}
