//go:build !unix

package httpsend

import "net"

// watch prepares alive for a socket.
func (c *conn) watch(*net.TCPConn) {}

// alive cannot look at the socket here: a POST on a connection that was closed
// meanwhile fails, and is tried again later.
func (c *conn) alive() bool { return true }
