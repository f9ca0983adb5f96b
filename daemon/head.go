package daemon

import (
	"errors"
	"strconv"
	"strings"
)

// headScanner follows the requests that come over one connection, byte by byte in
// any portions, and refuses what net/http would let pass and an OCI client never
// sends (security.md §6): a header line that goes on in the next (RFC 9112, 5.2), a
// Transfer-Encoding, a second Content-Length. net/http has joined the lines, or
// chosen between the lengths, before a handler sees the request, so that it has to be
// looked at before. What both refuse is left to net/http, which answers it.
//
// It must see a request begin where net/http does. Both end a line at LF, a head at
// an empty line and a body after Content-Length bytes; where the length is not one
// that net/http reads the same, the request is refused.
type headScanner struct {
	state  scanState
	name   []byte // of the header line so far, in lower case, at most maxName
	value  []byte // of Content-Length so far, at most maxValue
	length bool   // a Content-Length was seen in this head
	body   int64  // bytes of body still to come
	cr     bool   // the last byte of the line was the CR of an empty line
	err    error  // why the connection is to be refused
}

type scanState uint8

const (
	beforeRequest scanState = iota // where empty lines are passed over (RFC 9112, 2.2)
	inRequestLine
	atLineStart
	inName
	inLength // the value of a Content-Length
	inValue
	inBody
)

const (
	maxName  = len("transfer-encoding") + 1 // one more, so that a longer name is another
	maxValue = 32
)

var (
	errFolded      = errors.New("a header line that begins with a space")
	errEncoded     = errors.New("a request with Transfer-Encoding")
	errTwoLengths  = errors.New("a request with two Content-Length lines")
	errWrongLength = errors.New("a request whose Content-Length is not a number")
)

// scan takes the next bytes, and answers with how many of them may be passed on:
// all, or those before the byte that makes the connection one to be refused, for which
// err is the reason. After that it is not to be called again.
func (s *headScanner) scan(b []byte) int {
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
		if s.err = s.next(b[i]); s.err != nil {
			return i
		}
		i++
	}
	return len(b)
}

func (s *headScanner) next(c byte) error {
	switch s.state {
	case beforeRequest:
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

func (s *headScanner) startLine(c byte) error {
	switch {
	case c == '\n':
		s.endHead()
	case c == '\r' && !s.cr:
		// The end of the head if LF follows; else net/http refuses the line.
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

func (s *headScanner) endHead() {
	s.cr, s.length = false, false
	s.state = beforeRequest
	if s.body > 0 {
		s.state = inBody
	}
}

func (s *headScanner) inName(c byte) error {
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

func (s *headScanner) endLength() error {
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
