package hostconfig

import (
	"bytes"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
)

const maxProcesses = 1 << 16

// process is a container engine that runs.
type process struct {
	pid, parent int
	name        string // as the kernel has it: what was executed, at most 15 bytes
	uid         int    // effective
	args        []string
}

// processes lists the running engines of this host, by what every user may read
// of /proc: the watching service has no capability, without which the kernel does
// not tell even root which file another process executes. One with a process id of
// its own in a namespace is a container's engine (kind, docker:dind), not the host's.
func processes(t *hostfs.Host, names ...string) []process {
	dir, err := t.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	entries, _ := dir.Readdirnames(maxProcesses) // what could be read is what there is
	var list []process
	for _, entry := range entries {
		pid, err := strconv.ParseUint(entry, 10, 31)
		if err != nil {
			continue
		}
		p, ok := parseProcess(t.Peek("/proc/" + entry + "/status"))
		if !ok || !slices.Contains(names, p.name) {
			continue
		}
		p.pid = int(pid)
		args := strings.TrimSuffix(string(t.Peek("/proc/"+entry+"/cmdline")), "\x00")
		p.args = strings.Split(args, "\x00")
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b process) int { return a.pid - b.pid })
	return list
}

// parseProcess reads /proc/PID/status, proc_pid_status(5).
func parseProcess(status []byte) (p process, ok bool) {
	p.uid = -1
	for line := range bytes.Lines(status) {
		key, value, _ := strings.Cut(string(line), ":")
		words := strings.Fields(value)
		switch {
		case key == "Name" && len(words) > 0:
			p.name = words[0]
		case key == "PPid" && len(words) == 1:
			p.parent, _ = strconv.Atoi(words[0]) // the kernel writes a number
		case key == "Uid" && len(words) == 4:
			p.uid, _ = strconv.Atoi(words[1])
		case key == "NSpid" && len(words) > 1:
			return p, false
		}
	}
	return p, p.name != "" && p.uid >= 0
}

// unitOf is the systemd unit that a process belongs to, by its control group:
// "docker.service". "" where there is none.
func unitOf(t *hostfs.Host, pid int) string {
	for line := range bytes.Lines(t.Peek("/proc/" + strconv.Itoa(pid) + "/cgroup")) {
		name := path.Base(strings.TrimSpace(string(line)))
		if strings.HasSuffix(name, ".service") {
			return name
		}
	}
	return ""
}

// flag is the last value of a flag by any of its names ("--config", "-c"), in both
// of the forms that Go's programs take.
func flag(args []string, names ...string) string {
	values := flags(args, names...)
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

func flags(args []string, names ...string) []string {
	var values []string
	for i, arg := range args {
		for _, name := range names {
			value, ok := strings.CutPrefix(arg, name+"=")
			switch {
			case ok:
				values = append(values, value)
			case arg == name && i+1 < len(args):
				values = append(values, args[i+1])
			}
		}
	}
	return values
}

// runningDockerd is the host's own: the one with the usual pid file, of which there can be
// but one. One that only says something, as we ask it for its version, is no daemon;
// to take it for one would be to start Docker, by asking at its socket.
func runningDockerd(t *hostfs.Host) *process {
	for _, p := range processes(t, "dockerd") {
		pidfile := flag(p.args, "--pidfile", "-p")
		usual := pidfile == "" || pidfile == "/var/run/docker.pid" || pidfile == "/run/docker.pid"
		if p.uid == 0 && usual && !p.says() {
			return &p
		}
	}
	return nil
}

// says reports whether a process ends once it has said what its flags ask for.
func (p process) says() bool {
	return slices.ContainsFunc(p.args, func(arg string) bool {
		return slices.Contains([]string{"--version", "-v", "--validate", "--help", "-h"}, arg)
	})
}

// runningContainerd is the host's own, as far as it can be told: not the one that dockerd
// starts for itself, not one that k3s starts, not one started by hand.
func runningContainerd(t *hostfs.Host) *process {
	for _, p := range processes(t, "containerd") {
		config := flag(p.args, "--config", "-c")
		if p.uid == 0 && p.parent <= 1 && !inHome(config) && !strings.Contains(config, "/docker/") {
			return &p
		}
	}
	return nil
}

// ticks is USER_HZ, which is 100 on every platform that Go has (proc_pid_stat(5)).
const ticks = 100

// startedAt is when a process was started; the zero time where that cannot be told.
func startedAt(t *hostfs.Host, pid int) time.Time {
	_, rest, _ := bytes.Cut(t.Peek("/proc/"+strconv.Itoa(pid)+"/stat"), []byte(") "))
	fields := strings.Fields(string(rest)) // from the third on
	for line := range bytes.Lines(t.Peek("/proc/stat")) {
		text, ok := strings.CutPrefix(string(line), "btime ")
		if !ok || len(fields) < 20 {
			continue
		}
		boot, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
		after, err2 := strconv.ParseInt(fields[19], 10, 64)
		if err == nil && err2 == nil {
			return time.Unix(boot, 0).Add(time.Duration(after) * time.Second / ticks)
		}
	}
	return time.Time{}
}
