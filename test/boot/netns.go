package boot

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// listenIn opens a TCP listener in the network namespace of another process. The
// socket stays there, in whichever namespace its connections are accepted.
func listenIn(pid int, address string) (net.Listener, error) {
	theirs, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	ours, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	// The namespace is a thread's. One that cannot go back stays locked, and ends
	// with its goroutine.
	runtime.LockOSThread()
	if err := unix.Setns(int(theirs.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("entering the network of process %d: %w", pid, err)
	}
	listener, err := net.Listen("tcp", address)
	if back := unix.Setns(int(ours.Fd()), unix.CLONE_NEWNET); back != nil {
		return nil, fmt.Errorf("leaving the network of process %d: %w", pid, back)
	}
	runtime.UnlockOSThread()
	return listener, err
}
