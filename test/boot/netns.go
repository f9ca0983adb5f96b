package boot

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// listenIn opens a TCP listener in the network namespace of another process. The
// socket stays there, in whichever namespace its connections are accepted.
func listenIn(pid int, address string) (net.Listener, error) {
	return doIn(pid, func() (net.Listener, error) { return net.Listen("tcp", address) })
}

// dialIn connects from the network namespace of another process to a literal address, which needs no
// second goroutine: that would run in another namespace.
func dialIn(pid int, network, address string) (net.Conn, error) {
	return doIn(pid, func() (net.Conn, error) {
		return (&net.Dialer{FallbackDelay: -1, Timeout: dialLimit}).Dial(network, address)
	})
}

const dialLimit = 10 * time.Second

// doIn calls f in the network namespace of another process.
func doIn[T any](pid int, f func() (T, error)) (result T, err error) {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return result, err
	}
	defer theirs.Close()
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return result, err
	}
	defer ours.Close()
	// The namespace is a thread's. One that cannot go back stays locked, and ends
	// with its goroutine.
	runtime.LockOSThread()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return result, fmt.Errorf("entering the network of process %d: %w", pid, err)
	}
	result, err = f()
	if back := unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET); back != nil {
		return result, fmt.Errorf("leaving the network of process %d: %w", pid, back)
	}
	runtime.UnlockOSThread()
	return result, err
}
