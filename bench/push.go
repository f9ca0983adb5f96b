package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// push pushes images to a registry.
func (s *server) push(ctx context.Context, images []*image) error {
	base := "http://" + s.address + "/v2/" + repository
	for _, i := range images {
		for _, b := range append([]*blob{i.config}, i.layers...) {
			at, err := send(ctx, http.MethodPost, base+"/blobs/uploads/", "", nil)
			if err != nil {
				return err
			}
			q := at.Query()
			q.Set("digest", b.digest)
			at.RawQuery = q.Encode()
			if _, err := send(ctx, http.MethodPut, at.String(), "application/octet-stream", b); err != nil {
				return err
			}
		}
		if _, err := send(ctx, http.MethodPut, base+"/manifests/"+i.tag, manifestType, i.manifest); err != nil {
			return err
		}
	}
	return nil
}

// send sends one request of a push and returns the response's Location.
func send(ctx context.Context, method, to, mediaType string, body *blob) (*url.URL, error) {
	var from io.Reader
	if body != nil {
		from = body.reader()
	}
	r, err := http.NewRequestWithContext(ctx, method, to, from)
	if err != nil {
		return nil, err
	}
	if body != nil {
		r.ContentLength = body.size
		r.Header.Set("Content-Type", mediaType)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("push: %s %s: %s", method, r.URL.Path, resp.Status)
	}
	return resp.Location()
}

// digestOf reads r to its end.
func digestOf(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return fmt.Sprintf("sha256:%x", h.Sum(nil)), err
}
