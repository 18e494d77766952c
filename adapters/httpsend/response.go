package httpsend

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// response is what counts of one.
type response struct {
	status     int
	close      bool   // the connection ends with it
	keepAlive  string // the headers of these names
	retryAfter string
	body       io.Reader
}

func responseOf(r *http.Response) response {
	return response{r.StatusCode, r.Close, r.Header.Get("Keep-Alive"), r.Header.Get("Retry-After"), r.Body}
}

// readHeader reads a response up to its body, and passes over interim ones.
// net/http reads them, but for plain ones: it would take four times as long for
// these.
func readHeader(reader *bufio.Reader, body *counted) (response, error) {
	_, _ = reader.Peek(1) // whether this fails, reading on will say
	head, _ := reader.Peek(reader.Buffered())
	if r, n, length, ok := plain(head); ok {
		_, _ = reader.Discard(n)
		*body = counted{reader, length}
		r.body = body
		return r, nil
	}
	for {
		r, err := http.ReadResponse(reader, nil) //nolint:bodyclose // see receive
		if err != nil {
			return response{}, err
		}
		if r.StatusCode >= 200 || r.StatusCode == http.StatusSwitchingProtocols || r.StatusCode < 100 {
			return responseOf(r), nil
		}
	}
}

// counted is a body of known length.
type counted struct {
	from *bufio.Reader
	left int64
}

func (c *counted) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.from.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	switch {
	case c.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// plain reads the header of a response that is a final one of HTTP/1.1 as most
// are: all of it has come, each line has its form to the letter (RFC 9112,
// sections 4 and 5), what counts is given once, and the body's length is among
// it. All else, and all that is doubtful, is net/http's to judge; n and length
// are the header's bytes and the body's.
func plain(head []byte) (r response, n int, length int64, ok bool) {
	const start = "HTTP/1.1 "
	line, rest, found := cutLine(head)
	if !found || len(line) < len(start)+4 || string(line[:len(start)]) != start || line[len(start)+3] != ' ' {
		return r, 0, 0, false
	}
	for _, digit := range line[len(start) : len(start)+3] {
		if digit < '0' || digit > '9' {
			return r, 0, 0, false
		}
		r.status = 10*r.status + int(digit-'0')
	}
	if r.status < 200 {
		return r, 0, 0, false
	}
	length = -1
	for {
		line, rest, found = cutLine(rest)
		if !found {
			return r, 0, 0, false
		}
		if len(line) == 0 {
			break
		}
		name, value, found := cutField(line)
		if !found {
			return r, 0, 0, false
		}
		switch {
		case is(name, "content-length"):
			digits, err := strconv.ParseUint(string(value), 10, 62)
			if err != nil || length >= 0 {
				return r, 0, 0, false
			}
			length = int64(digits)
		case is(name, "connection"):
			if !is(value, "keep-alive") {
				return r, 0, 0, false
			}
		case is(name, "keep-alive"):
			if len(value) == 0 || r.keepAlive != "" {
				return r, 0, 0, false
			}
			r.keepAlive = string(value)
		case is(name, "retry-after"):
			if len(value) == 0 || r.retryAfter != "" {
				return r, 0, 0, false
			}
			r.retryAfter = string(value)
		case is(name, "transfer-encoding"), is(name, "trailer"), is(name, "upgrade"):
			return r, 0, 0, false
		}
	}
	if r.status == http.StatusNoContent || r.status == http.StatusNotModified {
		length = 0
	}
	return r, len(head) - len(rest), length, length >= 0
}

// cutLine gives what comes before the first end of a line, and after it.
func cutLine(b []byte) (line, rest []byte, found bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, false
	}
	return b[:i-1], b[i+1:], true
}

// cutField gives the name and the value of a line of a header, without the
// blanks around it. It finds none where there is a byte that neither may have.
func cutField(line []byte) (name, value []byte, found bool) {
	i := bytes.IndexByte(line, ':')
	if i < 1 {
		return nil, nil, false
	}
	for _, b := range line[:i] {
		if !nameBytes[b] {
			return nil, nil, false
		}
	}
	for _, b := range line[i+1:] {
		if b < ' ' && b != '\t' || b == 0x7f {
			return nil, nil, false
		}
	}
	return line[:i], bytes.Trim(line[i+1:], " \t"), true
}

// nameBytes are those of a token (RFC 9110, section 5.6.2).
var nameBytes = func() (table [256]bool) {
	for _, b := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		table[b] = true
	}
	return table
}()

// is compares with a lower-case word, in ASCII.
func is(b []byte, word string) bool {
	return len(b) == len(word) && strings.EqualFold(string(b), word)
}
