// Package socket speaks HTTP with an engine of root's over its Unix socket.
package socket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/sidemirror/sidemirror/hostconfig/process"
)

// ErrUnreachable is the cause of errors of an engine that cannot be asked from this process:
// nothing follows from it.
var ErrUnreachable = errors.New("it cannot be asked from here")

// Transport returns a transport to the process that listens at a socket, which must be root's.
// If nearby is true, the process must be in this process's network namespace too: one that is not
// has a loopback of its own.
func Transport(name string, nearby bool) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
			}
			peer, err := process.PeerOf(conn)
			if err != nil || peer.Uid != 0 || nearby && !sameNetwork(int(peer.Pid)) {
				_ = conn.Close()
				return nil, ErrUnreachable
			}
			return conn, nil
		},
	}
}

// Post sends a request to an engine. Its answer is not bounded: the caller has to.
func Post(ctx context.Context, transport *http.Transport, target, contentType string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", contentType)
	if contentType == grpcType {
		req.Header.Set("Te", "trailers")
	}
	return transport.RoundTrip(req)
}

// sameNetwork compares this process's network namespace with that of another. If that is not known,
// as by the watching service, it is not the same.
func sameNetwork(pid int) bool {
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return false
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	return err == nil && ours == theirs
}
