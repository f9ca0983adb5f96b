package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/sidemirror/sidemirror/daemon/activity"
	"github.com/sidemirror/sidemirror/daemon/health"
)

// Client asks the daemon that listens at a socket.
type Client struct {
	Socket string

	// Owners are the users that may have opened it, in addition to root and this process's own. Another
	// program at the socket is not believed.
	Owners []uint32
}

// Status asks for what the daemon knows of itself.
func (c Client) Status(ctx context.Context) (s Status, err error) {
	err = c.get(ctx, "/v1/status", &s)
	if err == nil && slices.ContainsFunc(s.Problems, func(p health.Problem) bool { return p.Problem == nil }) {
		err = errors.New("the daemon's reply has an empty problem")
	}
	return s, err
}

// Activity asks for what the proxy did lately.
func (c Client) Activity(ctx context.Context) (a activity.Activity, err error) {
	err = c.get(ctx, "/v1/activity", &a)
	return a, err
}

// Diagnose examines the upstreams of a registry from inside the daemon: with its logins, its name
// servers and its sandbox.
func (c Client) Diagnose(ctx context.Context, registry string) ([]Diagnosis, error) {
	var read diagnoses
	err := c.get(ctx, "/v1/registries/"+url.PathEscape(registry)+"/diagnosis", &read)
	return read.Diagnoses, err
}

func (c Client) get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidemirror"+path, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body := json.NewDecoder(io.LimitReader(resp.Body, maxReply))
	if resp.StatusCode != http.StatusOK {
		var said failure
		if err := body.Decode(&said); err == nil && said.Error != nil {
			return said.Error
		}
		return fmt.Errorf("the daemon answers %s", resp.Status)
	}
	return body.Decode(into)
}

func (c Client) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return nil, err
	}
	who, err := peerOf(conn.(*net.UnixConn))
	if err == nil && who.uid != 0 && who.uid != uint32(os.Geteuid()) && !slices.Contains(c.Owners, who.uid) {
		err = fmt.Errorf("a process of user %d listens at %s", who.uid, c.Socket)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}
