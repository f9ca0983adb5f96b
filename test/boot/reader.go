package boot

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/blocks"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/registry"
)

// followLimit bounds one block, buildLimit one that builds the program.
const followLimit, buildLimit = 3 * time.Minute, 10 * time.Minute

// reader is a person on a host who does what the documentation says: ann, who may use sudo and
// Docker, at a terminal.
type reader struct {
	m        *machine
	net      *internet
	password string // of alice at the registries
}

// The host of a reader, made as root. The editor of "systemctl edit" writes what is in /srv/pasted.
const prepare = `set -e
useradd --create-home --shell /bin/bash ann
usermod --append --groups docker ann
mkdir -p /etc/sudoers.d
printf "127.0.1.1 $(uname -n)\n" >>/etc/hosts
printf 'ann ALL=(ALL) NOPASSWD: ALL\nDefaults env_keep += "SYSTEMD_EDITOR SYSTEMD_PAGER"\n' >/etc/sudoers.d/ann
printf '#!/bin/sh\nfor file; do :; done\ncat /srv/pasted >"$file"\n' >/srv/editor
chmod 755 /srv/editor
mkdir -p /etc/containers
printf '[storage]\ndriver = "vfs"\ngraphroot = "/var/lib/containers/storage"\nrunroot = "/run/containers/storage"\n' >/etc/containers/storage.conf # the disk is an overlay already
mkdir -p /home/ann/sidemirror/dist
chown -R ann: /home/ann`

// images are those that the documentation pulls, and others for the table, since an engine does not
// fetch twice what it has.
const images = "library/redis:latest,1.4,3.20 library/alpine:3.20 bitnami/redis:latest,tag,1.4,3.20 " +
	"owner/image:latest,tag,1.4,3.20 acme/app:latest,1.4 pause:3.10"

// proxy is an HTTP proxy at the address that the documentation has. It writes the first line of each
// request into /srv/proxied.
const proxy = `
import socket, socketserver, threading

class Proxy(socketserver.StreamRequestHandler):
    def handle(self):
        first = self.rfile.readline().decode()
        while self.rfile.readline().strip():
            pass
        with open("/srv/proxied", "a") as seen:
            seen.write(first)
        host, port = first.split()[1].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as away:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=copy, args=(away, self.connection))
            back.start()
            copy(self.connection, away)
            back.join()

def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass

socketserver.ThreadingTCPServer(("127.0.0.1", 7890), Proxy).serve_forever()
`

// newReader boots the host of a reader. deb is the package that a reader of the package's host
// has built.
func newReader(t *testing.T, host, deb string) *reader {
	t.Helper()
	m := newMachine(t, people)
	r := &reader{m: m, net: connect(t, m)}
	r.password = r.net.private.Password
	m.write("/etc/docker/daemon.json", daemonJSON, 0o640)
	m.carry(deb, process.Path(t, "crane"))
	m.run(prepare)
	for _, image := range strings.Fields(images) {
		repository, tags, _ := strings.Cut(image, ":")
		for tag := range strings.SplitSeq(tags, ",") {
			r.net.public.Push(t, repository, tag, registry.Shape{Index: true, Size: 1 << 14})
		}
	}
	r.net.private.Push(t, "alice/private", "v1", registry.Shape{Index: true, Size: 1 << 14})
	m.write("/srv/proxy.py", proxy, 0o755)
	if host == source {
		r.bringGo(t)
		r.publish(t)
	}
	m.boot()
	m.run("install -m 755 /srv/crane /usr/local/bin/ && install -o ann " + inside(deb) + " /home/ann/sidemirror/dist/ && install -o ann " + inside(deb) + " /home/ann/")
	m.run("systemd-run --quiet --unit=proxy python3 /srv/proxy.py")
	if host == byHand {
		m.run("apt-get install --yes " + inside(deb))
	}
	return r
}

// follow does what the blocks of a task say.
func (r *reader) follow(t testing.TB, task blocks.Task) {
	t.Helper()
	// A person takes longer from one block to the next than systemd's limit of starts looks back.
	_, _ = r.m.try("systemctl reset-failed sidemirror.service sidemirror.socket")
	m := r.m
	if task.Before != "" {
		m.run("set -e\n" + r.fill(task.Before))
	}
	commands := strings.ReplaceAll(task.Blocks[0].Commands(), "_amd64.deb", "_"+runtime.GOARCH+".deb")
	switch task.As {
	case "":
		out, code := r.types(t, task, commands)
		if code != task.Code {
			t.Fatalf("%s: exit code %d, want %d:\n%s\n%s", where(task.Blocks), code, task.Code, commands, out)
		}
		for _, b := range task.Blocks {
			if err := shows(out, b.Output()); err != nil && !task.Sample {
				t.Errorf("%s:%d: %v, but\n%s", b.Document, b.Line, err, out)
			}
		}
		r.after(task)
	case "service":
		m.write("/srv/block", commands+"\n", 0o755)
		m.run("systemd-run --quiet --collect --unit=block --working-directory=/home/ann/sidemirror --setenv=HOME=/root bash -e /srv/block")
		m.owner.Cleanup(func() { _, _ = m.try("systemctl stop block") })
		r.after(task)
	case "configuration":
		r.configure(t, task)
	case "drop-in":
		r.dropIn(t, task, commands)
	default:
		t.Fatalf("%q is not a way to follow a block", task.As)
	}
}

// after waits until what the block does shows.
func (r *reader) after(task blocks.Task) {
	r.m.t.Helper()
	if task.After != "" {
		r.m.eventually(firstLine(task.After), func() error {
			_, err := r.m.try("set -e\n" + r.fill(task.After))
			return err
		})
	}
}

// types runs commands as ann types them at a terminal, line after line until one fails.
func (r *reader) types(t testing.TB, task blocks.Task, commands string) (output string, code int) {
	t.Helper()
	m := r.m
	m.write("/srv/block", commands+"\n", 0o755)
	as, limit := "ann", followLimit
	if task.On == source {
		as, limit = "root", buildLimit // root's are the machine's Go and its cache
	}
	folder := "/home/ann/sidemirror"
	if strings.Contains(commands, "git clone") || !strings.Contains(commands, "/dist/") && strings.Contains(commands, ".deb") {
		folder = "/home/ann"
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd, group := m.shell(ctx, fmt.Sprintf("cd %s && export SYSTEMD_EDITOR=/srv/editor SYSTEMD_PAGER=cat TERM=dumb %s && "+
		"exec setpriv --reuid %s --regid %[3]s --init-groups script --quiet --return --echo never --command 'bash -e /srv/block' /dev/null",
		folder, r.environment(as), as))
	defer group.Close()
	keyboard, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	screen := &typist{keyboard: keyboard, lines: strings.SplitAfter(r.fill(task.Types), "\n")}
	cmd.Stdout, cmd.Stderr = screen, screen
	err = cmd.Run()
	output = screen.seen.String()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		t.Fatalf("%s: %v\n%s", commands, err, output)
	}
	if strings.Contains(output, r.password) {
		t.Errorf("%s prints the password", firstLine(commands))
	}
	return output, cmd.ProcessState.ExitCode()
}

// typist reads what a terminal shows, and types the next line when it asks for one: what is typed
// before goes to the program that runs then.
type typist struct {
	keyboard io.Writer
	lines    []string
	seen     bytes.Buffer
	answered int // how much was seen when the last line was typed
}

// asks is the end of what a program shows when it waits for a login, or for a yes.
var asks = regexp.MustCompile(`(?i)((username|password)[^\n]*: |\[y/n\] )(\x1b\[\d*m)*$`)

func (s *typist) Write(p []byte) (int, error) {
	s.seen.Write(p)
	if len(s.lines) > 0 && asks.Match(s.seen.Bytes()[s.answered:]) {
		time.Sleep(time.Second / 4) // the program switches the echo off after it has asked
		_, _ = io.WriteString(s.keyboard, s.lines[0])
		s.lines, s.answered = s.lines[1:], s.seen.Len()
	}
	return len(p), nil
}

// fill puts the login that the registries know into a text of the table.
func (r *reader) fill(text string) string {
	return strings.NewReplacer("{password}", r.password, "{user}", r.net.private.User).Replace(text)
}

// environment is that of a person who is logged in.
func (r *reader) environment(as string) string {
	if as == "root" {
		return "HOME=/root PATH=/usr/local/bin:/usr/local/go/bin:$PATH GOMODCACHE=/srv/modules GOCACHE=/srv/cache GOFLAGS=-mod=readonly GOPROXY=off GOTOOLCHAIN=local"
	}
	return "HOME=/home/" + as + " PATH=/usr/local/bin:$PATH"
}

// configure pastes an example at the end of the configuration that is installed, and waits until
// it is in force.
func (r *reader) configure(t testing.TB, task blocks.Task) {
	t.Helper()
	m := r.m
	const file = "/etc/sidemirror/config.toml"
	m.run("cp -p " + file + " /srv/config.before")
	m.write("/srv/pasted", "\n"+task.Blocks[0].Text, 0o644)
	m.run("cat /srv/pasted >>" + file)
	if out, err := m.try("sidemirror config check"); err != nil {
		t.Errorf("%s: %v\n%s", where(task.Blocks), err, out)
	}
	r.after(task)
	m.run("cat /srv/config.before >" + file)
}

// dropIn pastes a block into the editor of "systemctl edit", restarts the unit and takes the
// drop-in away again.
func (r *reader) dropIn(t testing.TB, task blocks.Task, text string) {
	t.Helper()
	m := r.m
	command := "sudo systemctl edit " + task.Unit
	if first, rest, _ := strings.Cut(text, "\n"); strings.HasPrefix(first, "sudo systemctl edit ") {
		command, text = first, rest
	}
	m.write("/srv/pasted", text+"\n", 0o644)
	if out, code := r.types(t, task, command); code != 0 {
		t.Fatalf("%s: exit code %d\n%s", command, code, out)
	}
	drop := "/etc/systemd/system/" + task.Unit + ".d/override.conf"
	m.run("cmp /srv/pasted " + drop)
	m.run("systemctl daemon-reload && systemctl restart " + task.Unit)
	if err := m.active(task.Unit); err != nil {
		t.Errorf("%s: %v", where(task.Blocks), err)
	}
	r.after(task)
	m.run("rm -r /etc/systemd/system/" + task.Unit + ".d && systemctl daemon-reload && systemctl restart " + task.Unit)
}

// bringGo gives the machine this one's Go, with the modules and the cache that it has.
func (r *reader) bringGo(t testing.TB) {
	t.Helper()
	for variable, target := range map[string]string{"GOROOT": "/usr/local/go", "GOMODCACHE": "/srv/modules", "GOCACHE": "/srv/cache"} {
		out, err := exec.Command("go", "env", variable).Output()
		if err != nil {
			t.Fatal(err)
		}
		r.m.binds = append(r.m.binds, strings.TrimSpace(string(out))+":"+target)
	}
}

// publish puts this checkout where the machine's git finds it when it clones from GitHub.
func (r *reader) publish(t testing.TB) {
	t.Helper()
	checkout := r.m.path("/srv/checkout")
	if err := copyCheckout(checkout, func(_ string, data []byte) []byte { return data }); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"cd /srv/checkout && git init --quiet --initial-branch=main && git add --all && " +
			"git -c user.name=ann -c user.email=ann@example.com commit --quiet --message=checkout",
		"git config --system url./srv/checkout.insteadOf https://github.com/sidemirror/sidemirror",
	} {
		r.m.run(command)
	}
}

// printed returns the blocks of the package's manual pages, and of the page that its program serves
// at localhost:305, in both languages.
func printed(t testing.TB, deb string) []blocks.Block {
	t.Helper()
	tree := t.TempDir()
	if out, err := exec.Command("dpkg-deb", "--extract", deb, tree).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all []blocks.Block
	err := filepath.WalkDir(filepath.Join(tree, "usr/share/man"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		text, err := gzip.NewReader(file)
		if err != nil {
			return err
		}
		page, err := io.ReadAll(text)
		all = append(all, blocks.Manual(strings.TrimSuffix(filepath.Base(path), ".gz"), string(page))...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	harness.Use(filepath.Join(tree, "usr/bin/sidemirror"))
	page := harness.Start(t, harness.Options{})
	for _, language := range []string{"en", "zh"} {
		answer := page.Get("/?lang="+language, http.Header{"Host": {"localhost:305"}})
		answer.Is(t, "the page", http.StatusOK)
		all = append(all, blocks.Page("the page, "+language, string(answer.Body))...)
	}
	return all
}
