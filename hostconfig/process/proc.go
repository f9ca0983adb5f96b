package process

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

const (
	maxProcesses = 1 << 16
	maxProcFile  = 64 << 10 // read of one file of a process
)

// candidate is a process that bears the name of an engine. Any user can make one.
type candidate struct {
	pid    int
	name   string // of the executed file, at most 15 bytes
	uids   [4]int // real, effective, saved, file system
	args   []string
	cgroup string // on cgroup v1 that of systemd
	unit   string
}

func (c candidate) isRoot() bool { return c.uids == [4]int{} }

// candidates returns the processes that bear a name, ordered by process id. Each file of /proc that
// it reads is readable by every user: root without capabilities, as which the watching service runs,
// may read no others of an engine.
func candidates(name string) []candidate {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	entries, _ := dir.Readdirnames(maxProcesses) // an error leaves what was read until then
	var list []candidate
	for _, entry := range entries {
		pid, err := strconv.ParseUint(entry, 10, 31)
		if err != nil {
			continue
		}
		if c, ok := readCandidate(int(pid)); ok && c.name == name {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b candidate) int { return a.pid - b.pid })
	return list
}

func readCandidate(pid int) (candidate, bool) {
	c, ok := parseStatus(readProc(pid, "status"))
	if !ok {
		return candidate{}, false
	}
	c.pid = pid
	c.args = strings.Split(strings.TrimSuffix(string(readProc(pid, "cmdline")), "\x00"), "\x00")
	c.cgroup, c.unit = parseCgroup(readProc(pid, "cgroup"))
	return c, true
}

// parseStatus reads /proc/PID/status, proc_pid_status(5). It reports false for a process that has
// another id in a namespace of its own: that is the engine of a container.
func parseStatus(status []byte) (c candidate, ok bool) {
	uids := false
	for line := range bytes.Lines(status) {
		key, value, _ := strings.Cut(string(line), ":")
		words := strings.Fields(value)
		switch {
		case key == "Name" && len(words) > 0:
			c.name = words[0]
		case key == "Uid" && len(words) == len(c.uids):
			uids = true
			for i, word := range words {
				uid, err := strconv.Atoi(word)
				if err != nil || uid < 0 {
					return c, false
				}
				c.uids[i] = uid
			}
		case key == "NSpid" && len(words) > 1:
			return c, false
		}
	}
	return c, c.name != "" && uids
}

// parseCgroup reads /proc/PID/cgroup, cgroups(7). The unit is the service whose group it is; a
// service of a user's own manager is none.
func parseCgroup(data []byte) (cgroup, unit string) {
	for line := range bytes.Lines(data) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) != 3 || parts[0] != "0" && parts[1] != "name=systemd" {
			continue
		}
		cgroup = path.Clean("/" + parts[2])
		if base := path.Base(cgroup); strings.HasSuffix(base, ".service") && !inUserSession(cgroup) {
			return cgroup, base
		}
	}
	return cgroup, ""
}

// inUserSession reports whether a control group belongs to a login or to a user's own manager.
func inUserSession(cgroup string) bool {
	return slices.Contains(strings.Split(cgroup, "/"), "user.slice")
}

// containerID is the id that container engines name a container's control group after.
var containerID = lazyregexp.New(`[0-9a-f]{64}`)

// inContainer reports whether a control group is a container's.
func inContainer(cgroup string) bool { return containerID().MatchString(cgroup) }

// executable is what is known of the file that a process executes.
type executable struct {
	path  string
	known bool // the kernel tells; root needs CAP_SYS_PTRACE for it
	safe  bool // owned by root, not setuid or setgid, not writable by others
}

func inspectExecutable(pid int) executable {
	name := procPath(pid, "exe")
	info, err := os.Stat(name) // follows to the executed file, whatever bears its name now
	if errors.Is(err, fs.ErrPermission) {
		return executable{}
	}
	if err != nil {
		return executable{known: true}
	}
	link, err := os.Readlink(name)
	if err != nil {
		return executable{known: true}
	}
	return executable{path: link, known: true, safe: safeProgram(info)}
}

// safeProgram reports whether a file is a program that only root could have made, and that gives no
// right to the user who starts it.
func safeProgram(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && st.Uid == 0 && info.Mode().IsRegular() && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) == 0 && info.Mode().Perm()&0o022 == 0
}

// readProc returns the beginning of a file of a process, nil if it cannot be read.
func readProc(pid int, name string) []byte {
	f, err := os.Open(procPath(pid, name))
	if err != nil {
		return nil
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProcFile))
	if err != nil {
		return nil
	}
	return data
}

// ticks is USER_HZ, which is 100 on every platform that Go supports (proc_pid_stat(5)).
const ticks = 100

// started returns when a process was started, the zero time if that cannot be read.
func started(pid int) time.Time {
	_, rest, _ := bytes.Cut(readLast(readProc(pid, "stat")), []byte(") "))
	fields := strings.Fields(string(rest)) // from the third on
	boot, err := bootTime()
	if err != nil || len(fields) < 20 {
		return time.Time{}
	}
	after, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(boot, 0).Add(time.Duration(after) * time.Second / ticks)
}

// readLast returns stat from the last parenthesis on: the name before it may contain any byte.
func readLast(stat []byte) []byte {
	return stat[max(bytes.LastIndexByte(stat, ')'), 0):]
}

func bootTime() (int64, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(data) {
		if text, ok := strings.CutPrefix(string(line), "btime "); ok {
			return strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		}
	}
	return 0, errors.New("/proc/stat has no btime")
}
