// Package sandbox runs a function as a service manager runs a service: as the service's user, and with
// the files that the service sees.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Service is as whom, and in which mount namespace, a service runs.
type Service struct {
	UID, GID uint32
	Groups   []uint32 // supplementary

	// PID is a process of the service. If it is 0, the service does not run.
	PID int

	// Hidden are the folders that are hidden from the service. They matter if it does not run.
	Hidden []string
}

// Run calls f on a thread that has the service's user and sees the service's files, and returns when f
// does. The caller must be root. What f starts in another goroutine does not run as the service. If the
// thread cannot be made so, f is not called.
func Run(s Service, f func()) error {
	done := make(chan error)
	go func() {
		// The thread is not unlocked, so that it ends with this goroutine.
		runtime.LockOSThread()
		err := s.enter()
		if err == nil {
			f()
		}
		done <- err
	}()
	return <-done
}

// enter turns the calling thread into one of the service.
func (s Service) enter() error {
	if err := s.enterMounts(); err != nil {
		return err
	}
	// The functions of golang.org/x/sys/unix would change all threads.
	var groups unsafe.Pointer
	if len(s.Groups) > 0 {
		groups = unsafe.Pointer(&s.Groups[0])
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(s.Groups)), uintptr(groups), 0); errno != 0 {
		return fmt.Errorf("taking the groups of the service: %w", errno)
	}
	gid, uid := uintptr(s.GID), uintptr(s.UID)
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, gid, gid, gid); errno != 0 {
		return fmt.Errorf("becoming group %d: %w", s.GID, errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return fmt.Errorf("becoming user %d: %w", s.UID, errno)
	}
	return nil
}

// enterMounts gives the calling thread the service's view of the files.
func (s Service) enterMounts() error {
	if s.PID == 0 && len(s.Hidden) == 0 {
		return nil
	}
	// A thread that shares its working folder with others cannot change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leaving the process's working folder: %w", err)
	}
	if s.PID != 0 {
		ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", s.PID))
		if err != nil {
			return err
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("entering the mount namespace of process %d: %w", s.PID, err)
		}
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("making a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separating the mounts: %w", err)
	}
	for _, folder := range s.Hidden {
		if _, err := os.Stat(folder); errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := unix.Mount("tmpfs", folder, "tmpfs", unix.MS_RDONLY, "mode=0"); err != nil {
			return fmt.Errorf("hiding %s: %w", folder, err)
		}
	}
	return nil
}
