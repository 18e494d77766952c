package postgres

import (
	"errors"
	"strings"
	"syscall"
	"time"
)

const (
	// tcpUserTimeout is TCP_USER_TIMEOUT, see tcp(7).
	tcpUserTimeout = 18

	// unacknowledged is how long the other side may leave data unacknowledged.
	unacknowledged = 3 * time.Second
)

// limitUnacknowledged lets a connection break soon after the network began to
// drop what is sent.
func limitUnacknowledged(network, _ string, raw syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(unacknowledged.Milliseconds()))
	})
	return errors.Join(err, failed)
}
