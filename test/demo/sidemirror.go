package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// sidemirror is the real binary with a configuration of its own.
type sidemirror struct {
	binary, folder, address, registries string

	host *host
	cmd  *exec.Cmd
	log  lockedBuffer
	done chan struct{}
	end  error
}

// patience is how long the daemon may take to listen, and to end.
const patience = 15 * time.Second

// configure writes the configuration file and shows it.
func (m *sidemirror) configure(s *scene) {
	config := fmt.Sprintf("listen = [%q]\n\n[registry.%q]\n%s\n[registry.\"docker.io\"]\n%s\n[trust]\nuids = [%d]    # whose processes may use the password: you\n\n"+
		"[cache]\ndir = %q\n\n[credentials]\nstore = %q\n\n[log]\nformat = \"json\"\n",
		m.address, registryName, m.registries, m.registries, os.Getuid(), filepath.Join(m.folder, "cache"), filepath.Join(m.folder, "credentials.json"))
	s.must(os.WriteFile(m.config(), []byte(config), 0o644))
	s.quote(config)
}

func (m *sidemirror) config() string { return filepath.Join(m.folder, "config.toml") }

// command is one of the binary's, said to the audience and made ready to run.
func (m *sidemirror) command(s *scene, args ...string) *exec.Cmd {
	said := strings.ReplaceAll(strings.Join(args, " "), m.host.root, "host")
	s.gap()
	s.line("  %s %s", s.cyan("$"), s.bold("sidemirror "+said))
	cmd := exec.CommandContext(s.ctx, m.binary, append(args, "--config", m.config())...)
	// No more than that: every SIDEMIRROR_ variable would be a setting.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "NO_COLOR=1"}
	return cmd
}

// run runs a command to its end and shows what it says.
func (m *sidemirror) run(s *scene, args ...string) {
	cmd := m.command(s, args...)
	cmd.Stdin = strings.NewReader(password + "\n")
	output, err := cmd.CombinedOutput()
	m.quote(s, output)
	if err != nil {
		s.Fatalf("sidemirror %s: %v", args[0], err)
	}
}

// plan runs `plan`, whose exit status 2 says that there is something to do, and
// shows what it says of the files named; the others are more of the same.
func (m *sidemirror) plan(s *scene, files ...string) {
	output, err := m.command(s, "plan", "--root", m.host.root).CombinedOutput()
	m.quote(s, excerpt(output, files))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 2 {
		s.Fatalf("sidemirror plan ended with %v, want exit status 2: there is something to do", err)
	}
}

// quote shows output with the temporary folders' names taken out.
func (m *sidemirror) quote(s *scene, output []byte) {
	s.quote(strings.NewReplacer(m.host.root, "host", m.folder, "…").Replace(string(output)))
}

// excerpt leaves of a plan's diffs those of the files named, and counts the rest.
func excerpt(plan []byte, files []string) []byte {
	var kept []string
	shown, left := 0, 0
	for _, part := range strings.Split(string(plan), "\n\n") {
		_, header, diff := strings.Cut(part, "\n+++ ")
		path, _, _ := strings.Cut(header, "\n")
		if diff && !slices.ContainsFunc(files, func(file string) bool { return strings.HasSuffix(path, file) }) {
			left++
			continue
		}
		kept = append(kept, part)
		if diff {
			shown = len(kept)
		}
	}
	if left > 0 {
		kept = slices.Insert(kept, shown, fmt.Sprintf("(%d more files, in the same way)", left))
	}
	return []byte(strings.Join(kept, "\n\n"))
}

// serve starts the daemon and returns once it listens.
func (m *sidemirror) serve(s *scene) {
	m.cmd = m.command(s, "serve")
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	s.must(m.cmd.Start())
	m.done = make(chan struct{})
	go func() {
		m.end = m.cmd.Wait()
		close(m.done)
	}()
	s.Cleanup(func() { m.stop(s) })
	for deadline := time.Now().Add(patience); ; {
		if conn, err := net.Dial("tcp", m.address); err == nil {
			s.must(conn.Close())
			break
		}
		select {
		case <-m.done:
			s.Fatalf("sidemirror serve ended at once: %v\n%s", m.end, m.log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.Fatalf("sidemirror does not listen on %s\n%s", m.address, m.log.String())
		}
	}
	s.line("    %s", s.dim("listening on "+m.address))
}

// stop ends the daemon as systemd would. Once it has ended it does nothing.
func (m *sidemirror) stop(s *scene) {
	select {
	case <-m.done:
		return
	default:
	}
	s.must(m.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-m.done:
	case <-time.After(patience):
		s.must(m.cmd.Process.Kill())
		<-m.done
	}
	if m.end != nil {
		s.Errorf("sidemirror serve after SIGTERM: %v", m.end)
	}
}

// access is one of the daemon's access lines.
type access struct {
	Message    string `json:"msg"`
	Method     string `json:"method"`
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	Status     int    `json:"status"`
	Bytes      int64  `json:"bytes"`
	Upstream   string `json:"upstream"`
	UID        *int   `json:"uid"`
}

// lines are the access lines so far for one registry's repositories.
func (m *sidemirror) lines(registry string) []access {
	var found []access
	for line := range strings.Lines(m.log.String()) {
		var a access
		// What is no JSON, and what is another message, is no access line.
		if json.Unmarshal([]byte(line), &a) == nil && a.Message == "request" && a.Registry == registry && a.Repository != "" {
			found = append(found, a)
		}
	}
	return found
}

// linesAtLeast waits until there are n lines, for a while: a request's line is
// written when its answer is out, and comes to us by a pipe.
func (m *sidemirror) linesAtLeast(registry string, n int) []access {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if found := m.lines(registry); len(found) >= n || time.Now().After(deadline) {
			return found
		}
	}
}

// lockedBuffer is written by the daemon's output and read by the story.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
