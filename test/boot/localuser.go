package boot

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// An ordinary user of a machine, and package localuser's program, which they run.
const (
	userName  = "mallory"
	userHome  = "/srv/mallory" // the watching service sees /srv, and not /home
	localuser = "/usr/local/bin/localuser"
)

// addUser makes the ordinary user of a machine that runs, and gives it package localuser's program.
func (m *machine) addUser() {
	m.t.Helper()
	m.run("useradd --create-home --home-dir " + userHome + " --shell /bin/sh " + userName)
	m.write(localuser, localuserProgram(m.t), 0o755)
}

// as runs a shell script as the ordinary user, in a session of its own.
func (m *machine) as(format string, args ...any) string {
	m.t.Helper()
	script := fmt.Sprintf(format, args...)
	m.write(userHome+"/script", script+"\n", 0o755)
	return m.run("setpriv --reuid=" + userName + " --regid=" + userName + " --clear-groups setsid sh " + userHome + "/script </dev/null >/dev/null 2>&1")
}

// localuserProgram builds package localuser, static.
func localuserProgram(t testing.TB) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "localuser")
	build := exec.Command("go", "build", "-o", program, "./localuser")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return content(t, program)
}

func content(t testing.TB, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
