package socket

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

const (
	grpcType = "application/grpc"

	// MaxReply bounds what is read of a reply.
	MaxReply = 1 << 20
)

// Status is an error of a gRPC call, with its code.
type Status struct {
	Code int
	Text string
}

func (s *Status) Error() string { return s.Text }

// Codes of gRPC that callers tell apart.
const (
	Unimplemented = 12
	Unavailable   = 14
)

// Call makes a gRPC call with one message each way. It is spoken over net/http's own HTTP/2: a call
// is the few lines below, while grpc and an engine's API packages would make the program half as
// large again.
func Call(ctx context.Context, transport *http.Transport, method string, message []byte) ([]byte, error) {
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...) // not compressed
	resp, err := Post(ctx, transport, method, grpcType, frame)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxReply))
	if err != nil {
		return nil, fmt.Errorf("calling %s: %w", method, err)
	}
	said := resp.Trailer // complete now that the body is read
	if resp.Header.Get("Grpc-Status") != "" {
		said = resp.Header // an answer without a body
	}
	code, err := strconv.Atoi(said.Get("Grpc-Status"))
	if err != nil {
		return nil, fmt.Errorf("calling %s: the reply %q has no status of gRPC's", method, resp.Status)
	}
	if code != 0 {
		text, err := url.PathUnescape(said.Get("Grpc-Message"))
		if err != nil {
			text = said.Get("Grpc-Message")
		}
		return nil, &Status{code, text}
	}
	const head = 5
	if len(body) < head || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:head])) != uint64(len(body)-head) {
		return nil, fmt.Errorf("calling %s: the reply is not one whole message", method)
	}
	return body[head:], nil
}

// Field returns a field of a protocol buffer that has bytes for its value (wire type 2).
func Field(number uint64, value []byte) []byte {
	head := binary.AppendUvarint(nil, number<<3|2)
	return append(binary.AppendUvarint(head, uint64(len(value))), value...)
}

// Fields calls f with each field of a message that has bytes for its value, and skips others. It
// reports false if the message is malformed.
func Fields(message []byte, f func(number uint64, value []byte)) bool {
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		if n <= 0 {
			return false
		}
		message = message[n:]
		var size uint64
		bytes := false
		switch tag & 7 {
		case 0:
			if _, n = binary.Uvarint(message); n <= 0 {
				return false
			}
			size = uint64(n)
		case 1:
			size = 8
		case 2:
			if size, n = binary.Uvarint(message); n <= 0 {
				return false
			}
			message, bytes = message[n:], true
		case 5:
			size = 4
		default:
			return false
		}
		if size > uint64(len(message)) {
			return false
		}
		if bytes {
			f(tag>>3, message[:size])
		}
		message = message[size:]
	}
	return true
}
