package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server that runs, with the processes that it has started.
type process struct {
	name   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone
}

// stopTimeout is how long a server may take to end before it is killed.
const stopTimeout = 10 * time.Second

// spawn starts a program with env and PATH as its whole environment. What it prints goes to the
// file log, usually /dev/null, one write per line, as to a journal.
func spawn(name, log string, env []string, argv ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	//nolint:noctx // stop ends it in order; a context would kill it
	p := &process{name: name, cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{})}
	p.cmd.Env = append(env, "PATH="+os.Getenv("PATH"))
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A group of its own: ^C at the terminal is for us, who stop it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended says nothing here: we end it by signal
		close(p.exited)
	}()
	return p, nil
}

// stop ends it and waits. Its children end with it: nginx's master ends its workers.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its group is ours: Setpgid
		<-p.exited
	}
}

// pids are the process and all those that come of it.
func (p *process) pids() []int {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for _, word := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(word); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

// clockTick is 1/USER_HZ, the unit of times in /proc/PID/stat: 100 on all that Go runs on.
const clockTick = 10 * time.Millisecond

// cpu is the processor time that they all have used, user's and kernel's.
func (p *process) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range p.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("account for %s: %w", p.name, err)
		}
		// The name in parentheses may hold anything; utime and stime are fields 14 and 15.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		for _, f := range fields[11:13] {
			n, err := strconv.ParseInt(string(f), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("account for %s: %w", p.name, err)
			}
			sum += time.Duration(n) * clockTick
		}
	}
	return sum, nil
}

// memory is what is resident of them all, in bytes. Anon is their own; File are pages of
// files, the program's own among them, which others may share.
type memory struct{ RSS, Anon, File int64 }

func (p *process) memory() (memory, error) {
	var m memory
	for _, pid := range p.pids() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return m, fmt.Errorf("account for %s: %w", p.name, err)
		}
		for line := range strings.Lines(string(text)) {
			var to *int64
			key, value, _ := strings.Cut(line, ":")
			switch key {
			case "VmRSS":
				to = &m.RSS
			case "RssAnon":
				to = &m.Anon
			case "RssFile":
				to = &m.File
			default:
				continue
			}
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return m, fmt.Errorf("account for %s: %w", p.name, err)
			}
			*to += n << 10
		}
	}
	return m, nil
}

// ready waits until http://address and path answer, whatever that is.
func (p *process) ready(ctx context.Context, address, path string) error {
	end := time.Now().Add(20 * time.Second)
	for {
		if w, err := dial(ctx, address, 0); err == nil {
			err := w.send(path)
			if err == nil {
				_, err = w.in.Peek(1)
			}
			w.close()
			if err == nil {
				return nil
			}
		}
		select {
		case <-p.exited:
			return fmt.Errorf("%s ended before it served; run with -logs DIR to see why", p.name)
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not serve http://%s%s; run with -logs DIR to see why", p.name, address, path)
		}
		time.Sleep(time.Millisecond)
	}
}
