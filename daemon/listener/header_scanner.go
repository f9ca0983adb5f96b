package listener

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// headerScanner follows the requests that come over one connection, byte by byte and in any
// portions. It refuses what net/http would accept and an OCI client never sends: a header line
// that continues in the next line (RFC 9112, 5.2), a Transfer-Encoding, a second
// Content-Length. net/http joins the lines and chooses between the lengths before a handler
// sees the request, so the bytes must be examined first. What both refuse is left to net/http,
// which responds to it.
//
// The scanner must see a request begin where net/http does. Both end a line at LF, a header at
// an empty line and a body after Content-Length bytes. If the length is not one that net/http
// reads in the same way, the scanner refuses the request.
type headerScanner struct {
	state  scanState
	name   []byte // of the header line so far, in lower case, at most maxName bytes
	value  []byte // of Content-Length so far, at most maxValue bytes
	length bool   // this header has a Content-Length
	body   int64  // bytes of body still to come
	cr     bool   // the last byte of the line was the CR of an empty line
	err    error  // why the connection is refused
}

type scanState uint8

const (
	beforeRequest scanState = iota // where empty lines are ignored (RFC 9112, 2.2)
	inRequestLine
	atLineStart
	inName
	inLength // the value of a Content-Length
	inValue
	inBody
)

const (
	maxName  = len("transfer-encoding") + 1 // one more, so that a longer name differs
	maxValue = 32
)

// tlsHandshake is the first byte of a TLS connection. Engines try one before plain HTTP, and a hello
// without a newline in it would wait for the end of its line until the time limit. The response must
// be one of HTTP: containerd tries plain HTTP after that, but not after a connection that ends.
const tlsHandshake = 0x16

var (
	errHello       = errors.New("a TLS handshake at a port of plain HTTP")
	errFolded      = errors.New("a header line that begins with a space")
	errEncoded     = errors.New("a request with Transfer-Encoding")
	errTwoLengths  = errors.New("a request with two Content-Length lines")
	errWrongLength = errors.New("a request whose Content-Length is not a number")
)

// scan reads the next bytes and returns how many of them may be passed on: all, or those
// before the byte for which the connection must be refused. err is then the reason, and scan
// must not be called again.
func (s *headerScanner) scan(b []byte) int {
	for i := 0; i < len(b); {
		if s.state == inBody {
			skip := min(int64(len(b)-i), s.body)
			s.body -= skip
			i += int(skip)
			if s.body == 0 {
				s.state = beforeRequest
			}
			continue
		}
		if s.state == inRequestLine || s.state == inValue { // nothing before the end of the line counts
			end := bytes.IndexByte(b[i:], '\n')
			if end < 0 {
				break
			}
			i += end
		}
		if s.err = s.next(b[i]); s.err != nil {
			return i
		}
		i++
	}
	return len(b)
}

func (s *headerScanner) next(c byte) error {
	switch s.state {
	case beforeRequest:
		if c == tlsHandshake {
			return errHello
		}
		if c != '\r' && c != '\n' {
			s.state = inRequestLine
		}
	case inRequestLine, inValue:
		if c == '\n' {
			s.state = atLineStart
		}
	case atLineStart:
		return s.startLine(c)
	case inName:
		return s.inName(c)
	case inLength:
		if c != '\n' {
			if len(s.value) < maxValue {
				s.value = append(s.value, c)
				return nil
			}
			return errWrongLength
		}
		s.state = atLineStart
		return s.endLength()
	}
	return nil
}

func (s *headerScanner) startLine(c byte) error {
	switch {
	case c == '\n':
		s.endHead()
	case c == '\r' && !s.cr:
		// The header ends here if LF follows; otherwise net/http refuses the line.
		s.cr = true
	case c == ' ' || c == '\t':
		return errFolded
	default:
		s.cr = false
		s.state, s.name = inName, s.name[:0]
		return s.inName(c)
	}
	return nil
}

func (s *headerScanner) endHead() {
	s.cr, s.length = false, false
	s.state = beforeRequest
	if s.body > 0 {
		s.state = inBody
	}
}

func (s *headerScanner) inName(c byte) error {
	switch {
	case c == '\n':
		s.state = atLineStart // no colon: net/http refuses it
	case c != ':':
		if len(s.name) < maxName {
			s.name = append(s.name, lower(c))
		}
	case string(s.name) == "transfer-encoding":
		return errEncoded
	case string(s.name) != "content-length":
		s.state = inValue
	case s.length:
		return errTwoLengths
	default:
		s.state, s.length, s.value = inLength, true, s.value[:0]
	}
	return nil
}

func (s *headerScanner) endLength() error {
	n, err := strconv.ParseUint(strings.Trim(strings.TrimSuffix(string(s.value), "\r"), " \t"), 10, 63)
	if err != nil {
		return errWrongLength
	}
	s.body = int64(n)
	return nil
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
