//go:build unix

package httpsend

import (
	"errors"
	"net"
	"syscall"
)

// watch prepares alive for a socket.
func (c *conn) watch(tcp *net.TCPConn) {
	socket, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	c.socket = socket
	c.peek = func(fd uintptr) bool {
		var b [1]byte
		_, err := syscall.Read(int(fd), b[:])
		c.quiet = errors.Is(err, syscall.EAGAIN)
		return true
	}
}

// alive reports whether a connection that waited may be used: the receiver has
// neither closed it nor sent what nobody asked for. Between this look and the
// request's arrival it still may.
func (c *conn) alive() bool {
	if c.socket == nil {
		return true
	}
	c.quiet = false
	return c.socket.Read(c.peek) == nil && c.quiet
}
