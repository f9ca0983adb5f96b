package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
)

// get asks for a path, or a URL, as an engine does, each time over a new connection, and prints the statuses.
// It prints "000" if nothing listens, as in another network.
func get(ctx context.Context, path, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	url := path
	if strings.HasPrefix(path, "/") {
		url = "http://127.0.0.1:305" + path
	}
	for range n {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Accept", "*/*")
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if errors.Is(err, syscall.ECONNREFUSED) {
			fmt.Println("000")
			continue
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		fmt.Println(resp.StatusCode)
	}
	return nil
}
