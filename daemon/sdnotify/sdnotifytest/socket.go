// Package sdnotifytest lets a test be the systemd that a service notifies.
package sdnotifytest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Messages are the notifications that arrived, one message each.
type Messages chan string

// Listen makes a notification socket and sets NOTIFY_SOCKET to it for the rest of the test.
func Listen(t *testing.T) Messages {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // t.TempDir is too long for sun_path
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	messages, done := make(Messages, 1000), make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 64<<10); ; {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			messages <- string(b[:n])
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return messages
}

// Wait waits for a message that contains text and returns it. Each message counts as ending
// with a newline. If none arrives the test fails, and prints what log returns.
func (m Messages) Wait(t *testing.T, text string, log func() string) string {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case got := <-m:
			if strings.Contains(got+"\n", text) {
				return got
			}
		case <-timeout:
			t.Fatalf("systemd was not notified of %q; log:\n%s", text, log())
		}
	}
}
