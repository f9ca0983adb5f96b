// Command localuser is what an ordinary user of a machine under test runs against sidemirror.
//
//	localuser squat PORT REPORT       tries to bind PORT again and again, until SIGTERM
//	localuser listen REPORT ADDRESS   listens on a unix socket or at 127.0.0.1:PORT, until SIGTERM
//	localuser get PATH TIMES          asks sidemirror for PATH, and prints the status of each answer
//
// The first two write one line to REPORT for each request they receive; squat adds its totals. Under the
// name of an engine, "dockerd" or "containerd", the program sleeps whatever its arguments are.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "localuser:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if name := filepath.Base(os.Args[0]); name == "dockerd" || name == "containerd" {
		<-ctx.Done()
		return nil
	}
	if len(os.Args) != 4 {
		return errors.New("usage: localuser squat PORT REPORT | localuser listen REPORT ADDRESS | localuser get PATH TIMES")
	}
	switch os.Args[1] {
	case "squat":
		return squat(ctx, os.Args[2], os.Args[3])
	case "listen":
		return listen(ctx, os.Args[2], os.Args[3])
	case "get":
		return get(ctx, os.Args[2], os.Args[3])
	}
	return fmt.Errorf("no command %q", os.Args[1])
}

// report is the file with one line for each request received. It is made with the first.
type report struct {
	mu   sync.Mutex
	name string
}

func (r *report) line(format string, args ...any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.OpenFile(r.name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, format+"\n", args...)
	return errors.Join(err, f.Close())
}

// squatter counts what it tried and what it got.
type squatter struct {
	report          *report
	tries, bound    atomic.Int64
	received, other atomic.Int64 // requests; failures to bind for another reason than EACCES
	refused         atomic.Int64 // EACCES
	inUse           atomic.Int64 // EADDRINUSE
}

// squat tries to bind every address at which an engine may look for sidemirror. It keeps an
// address that it got for a moment, to receive what engines send there.
func squat(ctx context.Context, port, name string) error {
	r := &report{name: name}
	s := &squatter{report: r}
	var running sync.WaitGroup
	for _, host := range []string{"127.0.0.1", "::1", "0.0.0.0", "::"} {
		running.Go(func() { s.loop(ctx, net.JoinHostPort(host, port)) })
	}
	if err := r.line("started"); err != nil {
		return err
	}
	running.Wait()
	return r.line("tries=%d bound=%d refused=%d in_use=%d other=%d received=%d",
		s.tries.Load(), s.bound.Load(), s.refused.Load(), s.inUse.Load(), s.other.Load(), s.received.Load())
}

func (s *squatter) loop(ctx context.Context, address string) {
	for ctx.Err() == nil {
		s.tries.Add(1)
		config := net.ListenConfig{Control: reuse}
		l, err := config.Listen(ctx, "tcp", address)
		switch {
		case err == nil:
			s.bound.Add(1)
			s.accept(ctx, l.(*net.TCPListener))
		case errors.Is(err, syscall.EACCES):
			s.refused.Add(1)
		case errors.Is(err, syscall.EADDRINUSE):
			s.inUse.Add(1)
		case ctx.Err() == nil:
			s.other.Add(1)
			_ = s.report.line("bind %s: %v", address, err)
		}
	}
}

// reuse asks for every right to an address that another socket has.
func reuse(_, _ string, conn syscall.RawConn) error {
	var err error
	control := conn.Control(func(fd uintptr) {
		const reusePort = 15 // SO_REUSEPORT of Linux
		err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1),
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, reusePort, 1))
	})
	return errors.Join(control, err)
}

// accept keeps what it got for half a second after the last connection.
func (s *squatter) accept(ctx context.Context, l *net.TCPListener) {
	defer l.Close()
	for ctx.Err() == nil {
		if err := l.SetDeadline(time.Now().Add(time.Second / 2)); err != nil {
			return
		}
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.received.Add(1)
		_ = s.report.line("request at %s: %s", l.Addr(), firstLine(conn))
	}
}

// firstLine reads the first line that a client sends, and hangs up.
func firstLine(conn net.Conn) string {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err.Error()
	}
	line, err := bufio.NewReaderSize(conn, 4096).ReadString('\n')
	if err != nil {
		return fmt.Sprintf("%q, then %v", line, err)
	}
	return strings.TrimSpace(line)
}

func listen(ctx context.Context, name, address string) error {
	r := &report{name: name}
	network := "tcp"
	if filepath.IsAbs(address) {
		network = "unix"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil // it was closed
		}
		if err := r.line("request at %s: %s", address, firstLine(conn)); err != nil {
			return err
		}
	}
}
