package distant

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
)

// The distance is the reason of the figures. It can only be longer than it says.
func TestALinkDelaysAndCounts(t *testing.T) {
	content := make([]byte, 1<<20)
	_, _ = rand.Read(content)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }))
	defer server.Close()
	const roundTrip, rate = 30 * time.Millisecond, 16 << 20
	address := harness.FreeAddress(t)
	link := Listen(t, address, strings.TrimPrefix(server.URL, "http://"), roundTrip, rate)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	fetch := func() (time.Duration, error) {
		start := time.Now()
		response, err := client.Get("http://" + address)
		if err != nil {
			return 0, err
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		if err == nil && !bytes.Equal(got, content) {
			err = fmt.Errorf("%d other bytes", len(got))
		}
		return time.Since(start), err
	}
	const body = time.Second / 16 // of 1 MiB
	for i, least := range []time.Duration{2*roundTrip + body, roundTrip + body} {
		took, err := fetch()
		if err != nil {
			t.Fatal(err)
		}
		if took < least {
			t.Errorf("request %d took %v and cannot take less than %v", i+1, took, least)
		}
	}
	if sent, body := link.Sent(), int64(2*len(content)); sent < body || sent > body+4096 {
		t.Errorf("the link counts %d bytes of two bodies of %d in all", sent, body)
	}
	// Connections do not wait for each other.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, err := fetch(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
