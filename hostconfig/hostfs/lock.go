package hostfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	lockRetry    = 100 * time.Millisecond
	maxProcesses = 1 << 16
	maxFiles     = 4096 // open files looked at of one process
)

// ErrBusy is the cause of an error of [Host.Lock] if another process holds the lock.
var ErrBusy = errors.New("another sidemirror is changing this host")

// Lock keeps other processes of sidemirror from changing the host until the result is closed. If
// another one holds the lock, Lock waits until ctx ends, and then says which process that is. It
// tries at least once.
//
// The lock is on the root folder, so that it leaves nothing behind, and ends with the process. Any
// user may open that folder and lock it, so a lock counts only if a process of root's holds it.
// While another user holds one, two processes of root's do not exclude each other; each still leaves
// a file alone that changes under it.
func (h *Host) Lock(ctx context.Context) (io.Closer, error) {
	f, err := h.root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", h.dir, err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return lock{f}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("locking %s: %w", h.dir, err)
		}
		holders := holders(f)
		if len(holders) > 0 && !slices.ContainsFunc(holders, func(p holder) bool { return p.isOf(h.owners) }) {
			return lock{f}, nil
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, busy(h.dir, holders)
		case <-time.After(lockRetry):
		}
	}
}

func busy(dir string, holders []holder) error {
	p := &problem.Problem{Code: "host-locked", Path: dir, Err: ErrBusy, Hint: "run the command again when it is done; lslocks shows who holds the lock"}
	if len(holders) > 0 {
		p.Text = "locked by " + holders[0].String()
		p.Hint = "run the command again when it is done"
	}
	return p
}

// lock is given up explicitly, since a program that another goroutine starts holds a copy of the
// descriptor until it is executed.
type lock struct{ f *os.File }

func (l lock) Close() error {
	return errors.Join(unix.Flock(int(l.f.Fd()), unix.LOCK_UN), l.f.Close())
}

// holder is a process that holds the lock.
type holder struct {
	pid  int
	name string
	uids []uint32 // real, effective, saved and of file access
}

// isOf reports whether the process is one of these users' in every respect. A program with the
// set-uid bit that another user started is not.
func (p holder) isOf(users []uint32) bool {
	return len(p.uids) == 4 && !slices.ContainsFunc(p.uids, func(uid uint32) bool { return !slices.Contains(users, uid) })
}

func (p holder) String() string {
	user := ""
	if len(p.uids) > 0 {
		user = fmt.Sprintf(" of user %d", p.uids[0])
	}
	return fmt.Sprintf("process %d (%s)%s", p.pid, problem.QuotePath(p.name), user)
}

// holders lists the processes that hold a lock on the file, as far as /proc tells. It is empty if
// none can be seen.
func holders(f *os.File) []holder {
	var stat unix.Stat_t
	if unix.Fstat(int(f.Fd()), &stat) != nil {
		return nil
	}
	var list []holder
	for _, pid := range locking(stat.Ino) {
		if p, ok := describe(pid); ok {
			list = append(list, p)
		}
	}
	if len(list) > 0 {
		return list
	}
	return inheritors(stat.Ino)
}

// locking reads in proc_locks(5) which processes locked an inode. The numbers of devices are not
// compared, since they are not those of stat(2) on every file system.
func locking(ino uint64) []int {
	var pids []int
	for line := range bytes.Lines(procFile("/proc/locks")) {
		fields := strings.Fields(string(line)) // "1: FLOCK ADVISORY WRITE 4242 08:02:2 0 EOF"
		if len(fields) != 8 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], fmt.Sprintf(":%d", ino)) {
			continue
		}
		if pid, err := strconv.Atoi(fields[4]); err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// inheritors lists the processes that have the locked file open, if the one that locked it has ended:
// /proc/locks leaves such a lock out.
func inheritors(ino uint64) []holder {
	var list []holder
	for _, entry := range procNames("/proc", maxProcesses) {
		pid, err := strconv.Atoi(entry)
		if err != nil {
			continue
		}
		folder := "/proc/" + entry + "/fdinfo"
		for _, fd := range procNames(folder, maxFiles) {
			if !holdsLock(procFile(folder+"/"+fd), ino) {
				continue
			}
			if p, ok := describe(pid); ok {
				list = append(list, p)
			}
			break
		}
	}
	return list
}

// holdsLock reads a file of /proc/PID/fdinfo: "lock: 1: FLOCK ADVISORY WRITE 4242 08:02:2 0 EOF".
func holdsLock(info []byte, ino uint64) bool {
	for line := range bytes.Lines(info) {
		fields := strings.Fields(string(line))
		if len(fields) == 9 && fields[0] == "lock:" && fields[2] == "FLOCK" && strings.HasSuffix(fields[6], fmt.Sprintf(":%d", ino)) {
			return true
		}
	}
	return false
}

// describe reads a process's name and users, proc_pid_status(5).
func describe(pid int) (holder, bool) {
	p := holder{pid: pid}
	for line := range bytes.Lines(procFile(fmt.Sprintf("/proc/%d/status", pid))) {
		key, value, _ := strings.Cut(string(line), ":")
		switch key {
		case "Name":
			p.name = strings.TrimSpace(value)
		case "Uid":
			for _, text := range strings.Fields(value) {
				uid, err := strconv.ParseUint(text, 10, 32)
				if err != nil {
					return p, false
				}
				p.uids = append(p.uids, uint32(uid))
			}
		}
	}
	return p, p.name != "" && len(p.uids) == 4
}

// procFile reads the beginning of a file of the running system's /proc; nil if it cannot.
func procFile(name string) []byte {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return nil
	}
	return data
}

func procNames(folder string, most int) []string {
	d, err := os.Open(folder)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(most) // what could be read
	return names
}
