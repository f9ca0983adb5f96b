package quirky

import (
	"net"
	"syscall"
	"time"
	"unsafe"
)

// drained waits, a second at most, until the other end has acknowledged all that
// was sent: what a reset finds still unsent is lost, and a test that counts on
// the bytes before it would be wrong by chance.
func drained(c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		var queued int32
		_ = raw.Control(func(fd uintptr) {
			_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ, uintptr(unsafe.Pointer(&queued)))
		})
		if queued == 0 {
			return
		}
		<-tick.C
	}
}
