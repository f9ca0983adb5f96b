package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

// Socket is a socket that systemd opened for this process.
type Socket struct {
	// Name is its FileDescriptorName=, which by default is the name of the unit.
	Name string

	*net.TCPListener
}

// Sockets returns the sockets that systemd opened for this process (sd_listen_fds(3)), if
// any. All of them must be listening TCP sockets.
func Sockets() ([]Socket, error) {
	var listeners []Socket
	var faults []error
	for _, f := range activation.Files(true) {
		l, err := tcpListener(f)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		listeners = append(listeners, Socket{f.Name(), l})
	}
	if len(faults) > 0 {
		for _, l := range listeners {
			_ = l.Close()
		}
		return nil, errors.Join(faults...)
	}
	return listeners, nil
}

// tcpListener turns f into a listener and closes f.
func tcpListener(f *os.File) (*net.TCPListener, error) {
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("the socket %q that systemd handed over does not listen for connections (%w); use ListenStream=IP:PORT in the .socket unit", f.Name(), err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("the socket %q that systemd handed over is a %s socket, but engines use TCP; use ListenStream=IP:PORT in the .socket unit", f.Name(), l.Addr().Network())
	}
	return tcp, nil
}
