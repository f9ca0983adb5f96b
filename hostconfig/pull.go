package hostconfig

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// maxAnswer bounds what is read of an engine's answer to a pull.
const maxAnswer = 64 << 10

// Pull has an engine pull an image.
func (s system) Pull(ctx context.Context, q ask, reference string) error {
	if q.engine == Docker {
		return s.pullDocker(ctx, reference)
	}
	// A containerd that was restarted listens before its CRI service is ready.
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := pullCRI(ctx, q.socket, reference)
		if !errors.Is(err, errNotReady) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// pullDocker is POST /images/create of Docker's Engine API, which is what docker pull
// does. A fault is in the status or, once it has begun, in the stream.
func (s system) pullDocker(ctx context.Context, reference string) error {
	name, tag, _ := strings.Cut(reference, ":")
	query := url.Values{"fromImage": {name}, "tag": {tag}}
	resp, err := post(ctx, overSocket(s.socket()), "/images/create?"+query.Encode(), "application/json", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	for {
		var said struct{ Message, Error string }
		if err := dec.Decode(&said); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", resp.Status, err)
		}
		if text := said.Message + said.Error; text != "" {
			return errors.New(text)
		}
	}
}

// errNotReady is of a service that will answer in a moment.
var errNotReady = errors.New("it is not ready")

// Status codes of gRPC.
const (
	grpcUnimplemented = 12
	grpcUnavailable   = 14
)

// pullCRI is PullImage of the Kubernetes container runtime interface. It is one call
// with one string: spoken over net/http's own HTTP/2 it is the few lines below, while
// grpc and cri-api would make the whole program half as large again.
func pullCRI(ctx context.Context, socket, reference string) error {
	transport := overSocket(socket)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetUnencryptedHTTP2(true)
	// A frame (gRPC over HTTP2, Length-Prefixed-Message) of PullImageRequest{image: ImageSpec{image: reference}}.
	message := field(1, field(1, []byte(reference)))
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	resp, err := post(ctx, transport, "/runtime.v1.ImageService/PullImage", "application/grpc", frame)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return fmt.Errorf("asking CRI: %w", err)
	}
	said := resp.Trailer // complete now that the body is read
	if resp.Header.Get("Grpc-Status") != "" {
		said = resp.Header // an answer without a body
	}
	code, err := strconv.Atoi(said.Get("Grpc-Status"))
	if err != nil {
		return fmt.Errorf("asking CRI: it answers %s without a status of gRPC's", resp.Status)
	}
	text, err := url.PathUnescape(said.Get("Grpc-Message"))
	if err != nil {
		text = said.Get("Grpc-Message")
	}
	switch {
	case code == 0:
		return nil
	case code == grpcUnimplemented:
		return fmt.Errorf("containerd's CRI service does not run: %s", text)
	case code == grpcUnavailable, strings.Contains(text, "server is not initialized yet"):
		return fmt.Errorf("%w: %s", errNotReady, text)
	}
	return errors.New(text)
}

// field is a field of a protocol buffer that has bytes for its value (wire type 2).
func field(number uint64, value []byte) []byte {
	head := binary.AppendUvarint(nil, number<<3|2)
	return append(binary.AppendUvarint(head, uint64(len(value))), value...)
}

func post(ctx context.Context, transport *http.Transport, target, kind string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://localhost"+target, strings.NewReader(string(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", kind)
	if kind == "application/grpc" {
		req.Header.Set("Te", "trailers")
	}
	return transport.RoundTrip(req)
}

// overSocket reaches an engine at its socket, if it is in our network: one that
// is not has a loopback of its own.
func overSocket(name string) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", errNotAsked, err)
			}
			if !sameNetwork(conn.(*net.UnixConn)) {
				_ = conn.Close()
				return nil, errNotAsked
			}
			return conn, nil
		},
	}
}

// sameNetwork compares our network namespace with that of the process at the other end.
// Where that cannot be told, as by the watching service, it is not the same.
func sameNetwork(conn *net.UnixConn) bool {
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	var peer *unix.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) { peer, peerErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || peerErr != nil {
		return false
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return false
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", peer.Pid))
	return err == nil && ours == theirs
}
