package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Client asks the daemon that listens at a socket.
type Client struct{ Socket string }

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
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", c.Socket)
		},
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
