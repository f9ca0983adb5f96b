package socket

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidemirror/sidemirror/hostconfig/process"
)

func TestMain(m *testing.M) {
	if os.Getenv(listenerSocket) != "" {
		os.Exit(listenForEver())
	}
	goleak.VerifyTestMain(m)
}

func peerOf(t *testing.T, conn net.Conn) int {
	t.Helper()
	peer, err := process.PeerOf(conn)
	if err != nil {
		t.Fatal(err)
	}
	return int(peer.Pid)
}

// serve serves HTTP, without TLS, at a socket.
func serve(t *testing.T, h http.HandlerFunc) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "s") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return socket
}

func frame(message string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

func TestCallReturnsTheReplyOrTheStatus(t *testing.T) {
	for name, test := range map[string]struct {
		status, message string
		body            []byte
		reply, fault    string
		code            int
	}{
		"reply":          {"0", "", frame("hello"), "hello", "", 0},
		"empty reply":    {"0", "", frame(""), "", "", 0},
		"fault":          {"5", "not%20found", nil, "", "not found", 5},
		"compressed":     {"0", "", append([]byte{1}, frame("x")[1:]...), "", "not one whole message", 0},
		"too short":      {"0", "", []byte{0, 0}, "", "not one whole message", 0},
		"length is off":  {"0", "", frame("hello")[:7], "", "not one whole message", 0},
		"without status": {"", "", frame("x"), "", "no status", 0},
		"too long":       {"0", "", frame(strings.Repeat("x", 2*MaxReply)), "", "no status", 0},
	} {
		t.Run(name, func(t *testing.T) {
			socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/a.B/C" || r.ProtoMajor != 2 || r.Header.Get("Te") != "trailers" {
					t.Errorf("%s %s %v", r.Proto, r.URL.Path, r.Header)
				}
				w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
				w.Header().Set("Content-Type", "application/grpc")
				_, _ = w.Write(test.body)
				if test.status != "" {
					w.Header().Set("Grpc-Status", test.status)
					w.Header().Set("Grpc-Message", test.message)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			got, err := Call(ctx, Transport(socket, true), "/a.B/C", []byte("question"))
			if string(got) != test.reply || (err != nil) != (test.fault != "") || err != nil && !strings.Contains(err.Error(), test.fault) {
				t.Errorf("%q, %v", got, err)
			}
			var status *Status
			if errors.As(err, &status) && status.Code != test.code {
				t.Errorf("code %d", status.Code)
			}
		})
	}
}

func TestASocketThatIsNotThereIsUnreachable(t *testing.T) {
	_, err := Call(t.Context(), Transport(t.TempDir()+"/s", false), "/x", nil)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("error: %v", err)
	}
}

func TestFieldsSkipsWhatIsNotBytesAndRefusesWhatIsCutOff(t *testing.T) {
	message := append([]byte{0x08, 0x96, 0x01}, Field(2, []byte("ab"))...)                    // a varint
	message = append(message, 0x1d, 1, 2, 3, 4)                                               // 32 bits
	message = append(append(message, 0x21, 1, 2, 3, 4, 5, 6, 7, 8), Field(5, []byte("c"))...) // 64 bits
	var got []string
	if !Fields(message, func(n uint64, value []byte) { got = append(got, string(rune('0'+n))+string(value)) }) || strings.Join(got, " ") != "2ab 5c" {
		t.Errorf("got %q", got)
	}
	for _, bad := range [][]byte{{0x08}, {0x12, 0x05, 'a'}, {0x1d, 1}, {0x21, 1}, {0x0b}, {0x80}, {0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}} {
		if Fields(bad, func(uint64, []byte) {}) {
			t.Errorf("%x is taken for a message", bad)
		}
	}
}

func FuzzFields(f *testing.F) {
	f.Add(Field(1, []byte("x")))
	f.Fuzz(func(_ *testing.T, message []byte) { Fields(message, func(uint64, []byte) {}) })
}

// A process in another network has a loopback of its own.
func TestAProcessInAnotherNetworkIsNotNearby(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), listenerSocket+"="+dir+"/s")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	var conn net.Conn
	var err error
	for range 600 {
		if conn, err = net.Dial("unix", dir+"/s"); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if sameNetwork(peerOf(t, conn)) {
		t.Error("taken for this process's")
	}
	l, err := net.Listen("unix", dir+"/ours")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("unix", dir+"/ours")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if !sameNetwork(peerOf(t, ours)) {
		t.Error("our own is not taken for this process's")
	}
}

// listenerSocket names the socket that this test binary, run once more, listens at.
const listenerSocket = "SIDEMIRROR_TEST_LISTEN"

func listenForEver() int {
	l, err := net.Listen("unix", os.Getenv(listenerSocket))
	for err == nil {
		_, err = l.Accept()
	}
	return 3
}
