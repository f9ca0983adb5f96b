package process

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// The ports of FreePort are below those that the kernel gives to servers and clients that ask for any
// port (ip_local_port_range), so that none of these takes one meanwhile.
const firstPort, ports = 20_000, 12_000

// FreePort returns a TCP port that is free at 127.0.0.1, for programs that cannot choose a port and
// report it. No other test gets it until t ends, in this process or another one: an abstract socket
// with the port in its name says that it is taken.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := firstPort + rand.N(ports)
		taken, err := net.Listen("unix", fmt.Sprintf("@sidemirror-test-port-%d", port))
		if err != nil {
			continue
		}
		if l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = l.Close()
			t.Cleanup(func() { _ = taken.Close() })
			return port
		}
		_ = taken.Close()
	}
	t.Fatalf("no port of 127.0.0.1 is free from %d to %d", firstPort, firstPort+ports)
	return 0
}
