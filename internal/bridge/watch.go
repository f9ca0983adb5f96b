package bridge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quiet is how long nothing must change before a change is reported: a bridge that is made changes
	// several times. patience is how long it is not reported for that reason.
	quiet    = 50 * time.Millisecond
	patience = time.Second

	// notification is how much is read of a notification, of which only its arrival counts.
	notification = 4096
)

// Watch returns a channel that gets a value after network interfaces or addresses of this host have
// changed (rtnetlink(7)). What has changed is for [List] to find out. The channel is closed when ctx is
// done.
func Watch(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watching the network interfaces: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "rtnetlink")
	groups := unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR}
	if err := unix.Bind(fd, &groups); err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("watching the network interfaces: %w", err)
	}
	changed := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	go func() {
		defer close(changed)
		defer socket.Close()
		defer stop()
		report(socket, changed)
	}()
	return changed, nil
}

// report reads notifications until the socket is closed.
func report(socket *os.File, changed chan<- struct{}) {
	buffer := make([]byte, notification)
	for await(socket, buffer, time.Time{}) != gone {
		for end := time.Now().Add(patience); time.Now().Before(end); {
			if await(socket, buffer, time.Now().Add(quiet)) != arrived {
				break
			}
		}
		select {
		case changed <- struct{}{}:
		default: // one that was not received yet is enough
		}
	}
}

// What await found.
type found int

const (
	arrived found = iota
	nothing
	gone
)

// await waits for a notification until a time; the zero time is for ever.
func await(socket *os.File, buffer []byte, until time.Time) found {
	if socket.SetReadDeadline(until) != nil {
		return gone
	}
	_, err := socket.Read(buffer)
	switch {
	case err == nil, errors.Is(err, unix.ENOBUFS): // some were lost, which is a change too
		return arrived
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nothing
	}
	return gone
}
