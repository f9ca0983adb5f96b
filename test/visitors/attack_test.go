package visitors

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
)

// dialAll opens connections from a host, many at a time, and returns those that were made.
func (r *rig) dialAll(g *network.Guest, n int) (all []net.Conn) {
	r.t.Helper()
	var mu sync.Mutex
	var next atomic.Int64
	harness.Together(16, func(int) {
		for next.Add(1) <= int64(n) {
			c, err := g.Dial(r.t.Context(), "tcp4", gateway+":443")
			if err != nil {
				continue
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
		}
	})
	r.t.Cleanup(func() {
		for _, c := range all {
			_ = c.Close()
		}
	})
	return all
}

// open returns how many of the connections the site has not closed.
func open(all []net.Conn) (n int) {
	for _, c := range all {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond)) // fails if it is closed, and so does Read
		if _, err := c.Read(make([]byte, 1)); err != nil {
			if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
				n++
			}
		}
	}
	return n
}

// othersAreServed checks that a host with another address and an engine of this host are.
func (r *rig) othersAreServed(other *network.Guest, when string) {
	r.t.Helper()
	if got := r.ask(other, http.MethodGet, appManifest); got.Status != http.StatusOK || !bytes.Equal(got.Body, image.Bytes) {
		r.t.Errorf("%s, another host gets %d: %v %s", when, got.Status, got.Err, got.Says())
	}
	r.engineIsServed(when)
}

func TestTenThousandConnectionsOfOneHostShutOutNobodyElse(t *testing.T) {
	r := start(t, "")
	other := r.bridge.NewGuest("172.30.9.3")
	for _, tt := range []struct {
		name string
		from *network.Guest
		most int
	}{
		{"a visitor", r.guest, 256},
		{"a host that is refused", r.outsider("203.0.113.2", "203.0.113.0/24"), 16},
	} {
		before := r.OpenFiles()
		all := r.dialAll(tt.from, 10_000)
		if len(all) < 9_000 {
			t.Fatalf("%s: only %d connections were made", tt.name, len(all))
		}
		if n := r.OpenFiles() - before; n > tt.most+50 {
			t.Errorf("%s: the daemon has %d more files open", tt.name, n)
		}
		r.othersAreServed(other, "during 10,000 connections of "+tt.name)
		for _, c := range all {
			_ = c.Close()
		}
	}
	r.Eventually("the attacker itself is served again", func() bool { return r.get("/").Status == http.StatusOK })
}

func TestHandshakesAndHeadersThatDoNotEndAreCut(t *testing.T) {
	r := start(t, "")
	other := r.bridge.NewGuest("172.30.9.3")
	hello := []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3} // the beginning of a TLS handshake
	all := r.dialAll(r.guest, 200)
	for i, c := range all {
		switch i % 3 {
		case 0: // sends nothing
		case 1:
			_, _ = c.Write(hello) // fails if it is cut already
		case 2:
			secure := tls.Client(c, &tls.Config{RootCAs: r.pool, ServerName: siteName, NextProtos: []string{"http/1.1"}})
			if err := secure.HandshakeContext(t.Context()); err != nil {
				continue // cut already, on a busy machine
			}
			_, _ = secure.Write([]byte("GET /v2/ HTTP/1.1\r\nHost: " + siteName + "\r\nX-Slow: "))
		}
	}
	r.othersAreServed(other, "during the handshakes")
	r.Eventually("all connections are cut", func() bool { return open(all) == 0 })
}

func TestGuessesOfPasswordsAreDelayed(t *testing.T) {
	r := start(t, "users = \"USERS\"\n")
	other := r.bridge.NewGuest("172.30.9.3")
	if got := r.ask(other, http.MethodGet, appManifest, "Authorization", basic(ann, annPassword)); got.Status != http.StatusOK {
		t.Fatalf("the user gets %d: %s", got.Status, got.Says())
	}
	counts := map[int]int{}
	for i := range 60 {
		guess := basic(ann, fmt.Sprint("canary-guess-", i))
		for _, path := range []string{appManifest, "/v2/", "/v2/auth?service=sidemirror&scope=repository:" + public + ":pull"} {
			got := r.get(path, "Authorization", guess)
			counts[got.Status]++
			switch {
			case got.Status == http.StatusTooManyRequests && got.Header.Get("Retry-After") == "":
				t.Fatal("a refusal does not say when to come again")
			case got.Status != http.StatusUnauthorized && got.Status != http.StatusTooManyRequests:
				t.Fatalf("%s with a wrong password: %d", path, got.Status)
			}
		}
	}
	form := url.Values{"grant_type": {"password"}, "username": {ann}, "password": {"canary-guess-form"}}.Encode()
	resp, err := r.client(r.guest).Post("https://"+siteName+"/v2/auth", "application/x-www-form-urlencoded", strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	counts[resp.StatusCode]++
	// A busy machine takes longer for the guesses, so that more of them are checked.
	if counts[http.StatusTooManyRequests] < 100 || counts[http.StatusUnauthorized] < 5 {
		t.Errorf("the guesses got %v", counts)
	}
	// The right one among many guesses is as little use to an attacker.
	if got := r.get("/v2/", "Authorization", basic(ann, annPassword)); got.Status == http.StatusOK {
		t.Error("the right password is accepted among guesses")
	}
	if got := r.ask(other, http.MethodGet, appManifest, "Authorization", basic(ann, annPassword)); got.Status != http.StatusOK {
		t.Errorf("the user is locked out elsewhere: %d %s", got.Status, got.Says())
	}
	r.engineIsServed("meanwhile")
}

// A registry counts wrong logins for the address that they come from, which is this host's, and may refuse
// the engines' logins for it.
func TestGuessesOfARegistrysPasswordsAreDelayed(t *testing.T) {
	const token = "/v2/auth?service=x&scope=repository:" + private + ":pull"
	for how, path := range map[string]string{"at the token endpoint": token, "with a request": "/v2/" + private + "/manifests/v1"} {
		t.Run(how, func(t *testing.T) {
			r := start(t, "")
			other := r.bridge.NewGuest("172.30.9.3")
			const tries = 100
			delayed := 0
			r.hub.Forget()
			for i := range tries {
				got := r.get(path, "Authorization", basic(robot, fmt.Sprintf("canary-guess-%d", i)))
				switch got.Status {
				case http.StatusTooManyRequests:
					delayed++
				case http.StatusUnauthorized, http.StatusForbidden:
				default:
					t.Fatalf("guess %d: %d %s", i, got.Status, got.Body)
				}
			}
			sent := 0
			for _, request := range r.hub.All() {
				if request.Authorization() != "" {
					sent++
				}
			}
			if delayed == 0 || sent > tries/2 {
				t.Errorf("of %d guesses %d were delayed, and the registry got %d logins", tries, delayed, sent)
			}
			right := r.ask(other, http.MethodGet, token, "Authorization", basic(robot, robotPassword))
			if right.Status != http.StatusOK {
				t.Errorf("another host with the right login gets %d: %s", right.Status, right.Body)
			}
			r.engineIsServed("after the guesses")
		})
	}
}

func TestHTTP2StreamsThatAreResetOrTooMany(t *testing.T) {
	r := start(t, "")
	other := r.bridge.NewGuest("172.30.9.3")
	for name, flood := range map[string]func(f *http2.Framer, headers []byte, stream uint32) error{
		"reset": func(f *http2.Framer, headers []byte, stream uint32) error {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: headers, EndHeaders: true, EndStream: true}); err != nil {
				return err
			}
			return f.WriteRSTStream(stream, http2.ErrCodeCancel)
		},
		"never ended": func(f *http2.Framer, headers []byte, stream uint32) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: headers, EndHeaders: true})
		},
		"pings": func(f *http2.Framer, _ []byte, stream uint32) error {
			return f.WritePing(false, [8]byte{byte(stream)})
		},
	} {
		for range 4 {
			r.floodStreams(flood)
		}
		r.othersAreServed(other, "during a flood of streams ("+name+")")
	}
	r.Eventually("the attacker itself is served again", func() bool { return r.get("/").Status == http.StatusOK })
}

// floodStreams sends 10,000 frames over a connection, which the site may close.
func (r *rig) floodStreams(flood func(f *http2.Framer, headers []byte, stream uint32) error) {
	r.t.Helper()
	raw, err := r.guest.Dial(r.t.Context(), "tcp4", gateway+":443")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = raw.Close() })
	c := tls.Client(raw, &tls.Config{RootCAs: r.pool, ServerName: siteName, NextProtos: []string{"h2"}})
	if err := c.HandshakeContext(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if got := c.ConnectionState().NegotiatedProtocol; got != "h2" {
		r.t.Fatalf("the site speaks %q", got)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		r.t.Fatal(err)
	}
	f := http2.NewFramer(c, c)
	if err := f.WriteSettings(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, c) }()
	for i := range uint32(10_000) {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", siteName}, {":path", appManifest}} {
			_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}) // a Buffer takes it all
		}
		if flood(f, block.Bytes(), 2*i+1) != nil {
			return // the site has ended the connection
		}
	}
}

func TestRequestsThatAnotherProgramMayReadInAnotherWayAreRefused(t *testing.T) {
	for _, mode := range []string{"", "tls = \"off\"\n"} {
		t.Run("tls "+mode, func(t *testing.T) {
			r := start(t, mode)
			good := "GET " + appManifest + " HTTP/1.1\r\nHost: " + siteName + "\r\n"
			if status := r.raw(good+"\r\n", mode == ""); status != http.StatusOK {
				t.Fatalf("a request without fault: %d", status)
			}
			for name, text := range map[string]string{
				"two lengths":              good + "Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello",
				"a length and chunks":      good + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
				"chunks":                   good + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
				"a body":                   good + "Content-Length: 5\r\n\r\nhello",
				"a target of another host": "GET http://127.0.0.1:305" + appManifest + " HTTP/1.1\r\nHost: " + siteName + "\r\n\r\n",
				"a tunnel":                 "CONNECT 127.0.0.1:305 HTTP/1.1\r\nHost: " + siteName + "\r\n\r\n",
				"no host":                  "GET " + appManifest + " HTTP/1.0\r\n\r\n",
				"two hosts":                good + "Host: localhost\r\n\r\n",
				"a space before the colon": good + "X-Forwarded-For : 127.0.0.1\r\n\r\n",
				"TRACE":                    "TRACE " + appManifest + " HTTP/1.1\r\nHost: " + siteName + "\r\n\r\n",
			} {
				if status := r.raw(text, mode == ""); status < 400 {
					t.Errorf("%s: %d", name, status)
				}
			}
		})
	}
}

// raw sends bytes to the site and returns the status of the response, 400 if there is none.
func (r *rig) raw(text string, secure bool) int {
	r.t.Helper()
	c, err := r.guest.Dial(r.t.Context(), "tcp4", gateway+":443")
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	if secure {
		c = tls.Client(c, &tls.Config{RootCAs: r.pool, ServerName: siteName, NextProtos: []string{"http/1.1"}})
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	deadline, _ := ctx.Deadline()
	_ = c.SetDeadline(deadline) // fails if it is closed, and so does Write
	if _, err := io.WriteString(c, text); err != nil {
		return http.StatusBadRequest
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return http.StatusBadRequest
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
