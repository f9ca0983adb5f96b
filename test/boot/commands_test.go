package boot

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/sidemirror/sidemirror/test/blocks"
)

// The hosts on which the documentation's commands are run.
const (
	packaged = "package" // a reader who installs the deb
	byHand   = "by hand" // one who configures the engines by hand, as the page says
	source   = "source"  // one who builds from a clone
)

// Every block of the documentation, the manual pages and the page is in testdata/commands.toml,
// with the host that it is run on, or the reason why it is not.
func TestEveryCommandOfTheDocumentationWorksAsPrinted(t *testing.T) {
	deb := built(t).deb
	tasks, err := blocks.Tasks(table(t), append(documented(t), printed(t, deb)...))
	if err != nil {
		t.Fatal(err)
	}
	ran, exempt := 0, 0
	for _, task := range tasks {
		if task.Exempt != "" {
			exempt += len(task.Blocks)
			t.Logf("exempt: %s: %s: %s", where(task.Blocks), firstLine(task.Begins), task.Exempt)
		}
	}
	for _, host := range []string{packaged, byHand, source} {
		t.Run(host, func(t *testing.T) {
			r := newReader(t, host, deb)
			for _, task := range tasks {
				if task.On != host {
					continue
				}
				ran += len(task.Blocks)
				r.m.step(firstLine(task.Begins), func(t testing.TB) { r.follow(t, task) })
			}
			if host == byHand {
				r.m.step("the paste for daemon.json", func(t testing.TB) { r.merges(t, tasks) })
				r.m.step("a file with logins that the proxy cannot read", r.unreadableLogins)
			}
		})
	}
	t.Logf("%d blocks run, %d exempt", ran, exempt)
}

// merges shows what the page's paste for Docker makes of daemon.json files that a host may have.
func (r *reader) merges(t testing.TB, tasks []blocks.Task) {
	t.Helper()
	const file = "/etc/docker/daemon.json"
	paste := tasks[slices.IndexFunc(tasks, func(task blocks.Task) bool { return strings.HasPrefix(task.Begins, "sudo python3") })]
	for _, c := range []struct {
		name, before string
		docker       string // a version that docker reports, if not its own
		want         string // a condition of jq's; "" if the file stays as it is and the paste fails
	}{
		{"there is no file", "", "", `. == {"registry-mirrors": ["http://localhost:305"]}`},
		{"the file is empty", "\n", "", `."registry-mirrors" == ["http://localhost:305"]`},
		{"other settings", `{"log-driver": "journald", "debug": true}`, "", `."log-driver" == "journald" and .debug and ."registry-mirrors" == ["http://localhost:305"]`},
		{"another mirror", `{"registry-mirrors": ["https://m.example"]}`, "", `."registry-mirrors" == ["http://localhost:305", "https://m.example"]`},
		{"it is done already", `{"registry-mirrors": ["https://m.example", "http://localhost:305"]}`, "", `."registry-mirrors" == ["https://m.example", "http://localhost:305"]`},
		{"letters of every alphabet", `{"labels": ["a=镜像"]}`, "", `.labels == ["a=镜像"]`},
		{"a comment, which Docker refuses", "{\n  // mine\n}\n", "", ""},
		{"half a file", `{"registry-mirrors": [`, "", ""},
		{"Docker 28", `{"debug": true}`, "28.0.0", ""},
		{"Docker 29", `{"debug": true}`, "29.7.2", ""},
	} {
		r.m.run("rm -f " + file + " /usr/local/sbin/docker")
		if c.before != "" {
			r.m.write(file, c.before, 0o600)
		}
		if c.docker != "" {
			r.m.write("/usr/local/sbin/docker", "#!/bin/sh\necho "+c.docker+"\n", 0o755)
		}
		out, code := r.types(t, paste, paste.Blocks[0].Commands())
		after, err := os.ReadFile(r.m.path(file))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want == "" {
			if code == 0 || string(after) != c.before {
				t.Errorf("%s: exit code %d, and the file is %q\n%s", c.name, code, after, out)
			}
			continue
		}
		if _, err := r.m.try("jq -e '" + c.want + "' " + file); err != nil || code != 0 {
			t.Errorf("%s: exit code %d, %v, and the file is %s\n%s", c.name, code, err, after, out)
		}
	}
}

// unreadableLogins shows that a file that only root may read takes no public image away, and that
// status and config check name it.
func (r *reader) unreadableLogins(t testing.TB) {
	t.Helper()
	m := r.m
	const file = "/etc/sidemirror/logins.json"
	m.write(file, `{"auths":{"ghcr.io":{"auth":"`+base64.StdEncoding.EncodeToString([]byte(r.fill("{user}:{password}")))+`"}}}`, 0o600)
	m.run(`printf '\n[credentials]\nfiles = ["` + file + `"]\n' >>/etc/sidemirror/config.toml`)
	m.eventually("status names the file", func() error {
		out, err := m.try("sidemirror status")
		if err == nil || !strings.Contains(out, file) {
			return fmt.Errorf("status exits with 0, or does not name it:\n%s", out)
		}
		return nil
	})
	m.run("sidemirror pull bitnami/redis:3.20 ghcr.io/owner/image:3.20")
	if out, err := m.try("sidemirror pull ghcr.io/alice/private:v1"); err == nil || !strings.Contains(out, "cannot read one") {
		t.Errorf("a private image: %v\n%s", err, out)
	}
	if out, err := m.try("sidemirror config check"); err == nil || !strings.Contains(out, file) {
		t.Errorf("config check does not name it: %v\n%s", err, out)
	}
	m.run("chgrp sidemirror " + file + " && chmod 640 " + file)
	m.run("sidemirror pull ghcr.io/alice/private:v1")
}

// table reads the table of blocks.
func table(t *testing.T) []blocks.Entry {
	t.Helper()
	data, err := os.ReadFile("testdata/commands.toml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Block []blocks.Entry }
	decoder := toml.NewDecoder(strings.NewReader(string(data))).DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		t.Fatal(err)
	}
	return file.Block
}

// documented returns the blocks of the documents for users and for those who build.
func documented(t *testing.T) []blocks.Block {
	t.Helper()
	var all []blocks.Block
	for _, pattern := range []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/*.md", "docs/zh/*.md"} {
		files, err := filepath.Glob(filepath.Join("../..", pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no document %s: %v", pattern, err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, blocks.Markdown(strings.TrimPrefix(file, "../../"), string(text))...)
		}
	}
	return all
}

func where(found []blocks.Block) string {
	names := make([]string, len(found))
	for i, b := range found {
		names[i] = fmt.Sprintf("%s:%d", b.Document, b.Line)
	}
	return strings.Join(names, ", ")
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// shows reports whether output has the lines that a document shows, in their order.
func shows(output string, lines []string) error {
	rest := strings.Split(strings.ReplaceAll(output, "\r", ""), "\n")
	for _, line := range lines {
		pattern := regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + "$")
		found := -1
		for i, printed := range rest {
			if pattern.MatchString(strings.TrimRight(printed, " ")) {
				found = i
				break
			}
		}
		if found < 0 {
			return fmt.Errorf("it does not print %q", line)
		}
		rest = rest[found+1:]
	}
	return nil
}
