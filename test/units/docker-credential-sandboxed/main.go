// Docker-credential-sandboxed is a credential helper that does what such helpers do,
// so that it shows whether they can inside the sandbox of sidemirror.service: it asks a
// token server over TLS and keeps the answer in HOME. Its other commands try what the
// sandbox forbids, and fail where that is so.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docker-credential-sandboxed:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "get":
		return get()
	case len(args) == 1 && args[0] == "execute-written-memory":
		return executeWrittenMemory()
	case len(args) == 2 && args[0] == "talk-at":
		return talkAt(args[1])
	}
	return errors.New("usage: docker-credential-sandboxed get | execute-written-memory | talk-at ADDRESS")
}

// get is the protocol of Docker's credential helpers: a server's address comes in, a
// login goes out.
func get() error {
	server, err := io.ReadAll(io.LimitReader(os.Stdin, 4096))
	if err != nil {
		return err
	}
	token, err := fetch()
	if err != nil {
		return err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	kept := filepath.Join(home, ".sandboxed", "token.json")
	if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(kept, token, 0o600); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(kept)) }()
	if again, err := os.ReadFile(kept); err != nil || string(again) != string(token) {
		return fmt.Errorf("the token that was kept is %q, %w", again, err)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]string{
		"ServerURL": strings.TrimSpace(string(server)), "Username": "sandboxed", "Secret": string(token),
	})
}

// fetch asks a token server, by a name, over TLS. The server is our own.
func fetch() ([]byte, error) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "a-token")
	}))
	defer server.Close()
	client := server.Client()
	defer client.CloseIdleConnections()
	resp, err := client.Get(server.URL)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, 4096))
}

func executeWrittenMemory() error {
	memory, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("memory that is written and executed: %w", err)
	}
	return unix.Munmap(memory)
}

// talkAt listens at an address of this host, and connects to itself there.
func talkAt(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return fmt.Errorf("this cannot be tried: %w", err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, "heard")
			_ = c.Close()
		}
	}()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	if err := c.SetReadDeadline(deadline); err != nil {
		return err
	}
	_, err = io.ReadFull(c, make([]byte, len("heard")))
	return err
}
