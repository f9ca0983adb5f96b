package units

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

const source = "../../systemd"

var units = []string{"sidemirror.socket", "sidemirror-site.socket", "sidemirror-site-http.socket", "sidemirror.service", "sidemirror-hosts.service"}

// run returns a program's output. The program must exist: test/setup.sh installs systemd.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v: install Debian's package systemd (test/setup.sh does)", err)
	}
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "LC_ALL=C", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0")
	err := cmd.Run()
	return out.String(), err
}

func mustRun(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := run(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// tree makes the tree of a host with sidemirror's files and, if with is true, systemd's own units.
func tree(t *testing.T, with bool) string {
	t.Helper()
	root := t.TempDir()
	if with {
		own := "/usr/lib/systemd/system"
		if _, err := os.Stat(own); err != nil {
			own = "/lib/systemd/system"
		}
		if err := os.CopyFS(filepath.Join(root, "usr/lib/systemd/system"), os.DirFS(own)); err != nil {
			t.Fatal(err)
		}
	}
	for _, unit := range units {
		install(t, filepath.Join(source, unit), filepath.Join(root, "usr/lib/systemd/system", unit), 0o644)
	}
	install(t, filepath.Join(source, "sidemirror.sysusers"), filepath.Join(root, "usr/lib/sysusers.d/sidemirror.conf"), 0o644)
	install(t, filepath.Join(source, "sidemirror.tmpfiles"), filepath.Join(root, "usr/lib/tmpfiles.d/sidemirror.conf"), 0o644)
	install(t, filepath.Join(source, "sidemirror.preset"), filepath.Join(root, "usr/lib/systemd/system-preset/80-sidemirror.preset"), 0o644)
	install(t, harness.Binary(t), filepath.Join(root, "usr/bin/sidemirror"), 0o755)
	install(t, "/bin/sh", filepath.Join(root, "bin/sh"), 0o755)
	return root
}

func install(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	put(t, to, data, mode)
}

func put(t *testing.T, to string, data []byte, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, mode); err != nil {
		t.Fatal(err)
	}
}

func TestTheUnitsAreClean(t *testing.T) {
	root := tree(t, true)
	verify := append([]string{"verify", "--man=no", "--root=" + root}, units...)
	if out := mustRun(t, "systemd-analyze", verify...); strings.Contains(out, "sidemirror") {
		t.Errorf("systemd-analyze verify says\n%s", out)
	}
	// It finds a mistake.
	unit := filepath.Join(root, "usr/lib/systemd/system/sidemirror.service")
	data, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	put(t, unit, bytes.Replace(data, []byte("ProtectHome=yes"), []byte("ProtectHomes=yes"), 1), 0o644)
	if out, _ := run(t, "systemd-analyze", verify...); !strings.Contains(out, "ProtectHomes") {
		t.Errorf("it does not see a mistake:\n%s", out)
	}
}

// A kernel without IPv6 has no /proc/net/if_inet6, by which systemd tells. The file is
// hidden from systemd-analyze alone, in a mount namespace of its own.
func TestWithoutIPv6TheSocketIsStillLoaded(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a mount namespace needs root")
	}
	root := tree(t, true)
	out := mustRun(t, "unshare", "--mount", "--propagation", "private", "sh", "-c",
		`mount -t tmpfs none /proc/$$/net && exec systemd-analyze verify --man=no --root=`+root+` sidemirror.socket`)
	if !strings.Contains(out, "kernel does not support IPv6") {
		t.Errorf("systemd did not believe that there is none:\n%s", out)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "sidemirror") {
			t.Errorf("it says %s", line)
		}
	}
}

func TestTheExposureIsLow(t *testing.T) {
	for unit, most := range map[string]string{"sidemirror.service": "15", "sidemirror-hosts.service": "10"} {
		file, err := filepath.Abs(filepath.Join(source, unit))
		if err != nil {
			t.Fatal(err)
		}
		out, err := run(t, "systemd-analyze", "security", "--offline=true", "--threshold="+most, file)
		if err != nil {
			t.Errorf("%s is above %s tenths: %v\n%s", unit, most, err, out)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		t.Log(lines[len(lines)-1])
		if _, err := run(t, "systemd-analyze", "security", "--offline=true", "--threshold=1", file); err == nil {
			t.Errorf("%s is below one tenth, so that the threshold seems to be without effect", unit)
		}
	}
}

func TestEnablingMakesSocketAndWatcherStartAtBootAndNothingElse(t *testing.T) {
	for name, args := range map[string][]string{
		"by preset":                       append([]string{"preset"}, units...),
		"as install does":                 {"enable", "sidemirror.socket", "sidemirror-hosts.service"},
		"by who takes it for the service": {"enable", "sidemirror.service", "sidemirror-hosts.service"},
	} {
		t.Run(name, func(t *testing.T) {
			root := tree(t, false)
			mustRun(t, "systemctl", append([]string{"--root=" + root}, args...)...)
			links, err := filepath.Glob(filepath.Join(root, "etc/systemd/system/*/*"))
			if err != nil {
				t.Fatal(err)
			}
			for i, link := range links {
				links[i] = strings.TrimPrefix(link, root)
			}
			want := []string{
				"/etc/systemd/system/multi-user.target.wants/sidemirror-hosts.service",
				"/etc/systemd/system/sockets.target.wants/sidemirror.socket",
			}
			if !slices.Equal(links, want) {
				t.Errorf("enabled are %q", links)
			}
			mustRun(t, "systemctl", append([]string{"--root=" + root, "disable"}, units...)...)
			if left, _ := filepath.Glob(filepath.Join(root, "etc/systemd/system/*/*")); len(left) > 0 {
				t.Errorf("disabled, there still are %q", left)
			}
		})
	}
}

func TestTheUserAndItsFolders(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("another user's folders need root")
	}
	root := tree(t, false)
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time changes nothing
		mustRun(t, "systemd-sysusers", "--root="+root)
		mustRun(t, "systemd-tmpfiles", "--create", "--root="+root, "sidemirror.conf")
	}
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	var user []string
	for line := range strings.Lines(string(passwd)) {
		if strings.HasPrefix(line, "sidemirror:") {
			user = strings.Split(strings.TrimSpace(line), ":")
		}
	}
	if len(user) != 7 || user[2] == "0" || user[5] != "/var/lib/sidemirror" || !strings.HasSuffix(user[6], "/nologin") {
		t.Fatalf("the user is %q", user)
	}
	for _, folder := range []string{"var/lib/sidemirror", "var/cache/sidemirror"} {
		info, err := os.Stat(filepath.Join(root, folder))
		if err != nil {
			t.Fatal(err)
		}
		uid := info.Sys().(*syscall.Stat_t).Uid
		if info.Mode() != os.ModeDir|0o700 || user[2] != strconv.Itoa(int(uid)) {
			t.Errorf("%s is %v, of user %d", folder, info.Mode(), uid)
		}
	}
}

var quoted = regexp.MustCompile(`"([^"]+)"`)

// The program and its units each have these defaults, which must be the same.
func TestUnitsAndProgramAgree(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "config.toml")
	put(t, empty, nil, 0o644)
	show := mustRun(t, harness.Binary(t), "config", "show", "--config", empty)
	socket, service, watcher := read(t, "sidemirror.socket"), read(t, "sidemirror.service"), read(t, "sidemirror-hosts.service")

	addresses := quoted.FindAllStringSubmatch(setting(t, show, "listen"), -1)
	if len(addresses) == 0 {
		t.Error("the program listens at no address")
	}
	for _, address := range addresses {
		if !slices.Contains(socket["ListenStream"], address[1]) {
			t.Errorf("the program listens at %s, and the socket unit at %q", address[1], socket["ListenStream"])
		}
	}
	for _, address := range socket["ListenStream"] {
		if _, port, err := net.SplitHostPort(address); err != nil || number(t, port) >= 1024 {
			t.Errorf("every user can open %s: %v", address, err)
		}
	}
	for name, unit := range map[string]map[string][]string{"the proxy": service, "the watcher": watcher} {
		if high, most := bytesOf(t, last(t, unit["MemoryHigh"])), bytesOf(t, last(t, unit["MemoryMax"])); high < 64<<20 || high >= most || most > 2<<30 {
			t.Errorf("%s may use %d bytes, and the kernel ends it at %d", name, high, most)
		}
	}
	// With StateDirectory= and CacheDirectory= the proxy would not start where a folder is read-only.
	writable := strings.Fields(last(t, service["ReadWritePaths"]))
	if store := setting(t, show, "store"); !slices.Contains(writable, "-"+path.Dir(strings.Trim(store, `"`))) {
		t.Errorf("logins are stored in %s, and the unit may write to %q", store, writable)
	}
	if dir := setting(t, show, "dir"); !slices.Contains(writable, "-"+strings.Trim(dir, `"`)) {
		t.Errorf("the cache is %s, and the unit may write to %q", dir, writable)
	}
	made, err := os.ReadFile(filepath.Join(source, "sidemirror.tmpfiles"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range writable {
		if !strings.Contains(string(made), "\nd "+strings.TrimPrefix(folder, "-")+" 0700 sidemirror ") {
			t.Errorf("the unit may write to %s, which systemd-tmpfiles does not create", folder)
		}
	}
	drain, stop := duration(t, setting(t, show, "shutdown_timeout")), duration(t, last(t, service["TimeoutStopSec"]))
	if stop < drain+5*time.Second {
		t.Errorf("the daemon may take %v for its end, and systemd gives it %v", drain, stop)
	}

	for name, unit := range map[string]map[string][]string{"the proxy": service, "the watcher": watcher} {
		if unit["Type"][0] != "notify" || unit["CapabilityBoundingSet"][0] != "" || unit["LimitCORE"][0] != "0" {
			t.Errorf("%s: Type %q, capabilities %q, core dumps %q", name, unit["Type"], unit["CapabilityBoundingSet"], unit["LimitCORE"])
		}
	}
	for _, engine := range []string{"docker.service", "containerd.service", "kubelet.service"} {
		for name, unit := range map[string]map[string][]string{"socket": socket, "service": service} {
			if !slices.Contains(strings.Fields(last(t, unit["Before"])), engine) {
				t.Errorf("the %s is not ordered before %s", name, engine)
			}
		}
	}
	if len(service["WantedBy"])+len(service["RequiredBy"]) > 0 {
		t.Error("a boot waits for the proxy")
	}
}

// read returns the settings of a unit, of all its sections.
func read(t *testing.T, unit string) map[string][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(source, unit))
	if err != nil {
		t.Fatal(err)
	}
	settings := make(map[string][]string)
	for line := range strings.Lines(string(data)) {
		if key, value, found := strings.Cut(strings.TrimSpace(line), "="); found && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return settings
}

func last(t *testing.T, values []string) string {
	t.Helper()
	if len(values) == 0 {
		t.Fatal("the setting is not there")
	}
	return values[len(values)-1]
}

// setting returns a value that "config show" prints.
func setting(t *testing.T, show, key string) string {
	t.Helper()
	for line := range strings.Lines(show) {
		if name, value, found := strings.Cut(line, "="); found && strings.TrimSpace(name) == key {
			value, _, _ = strings.Cut(value, "#")
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("config show has no %s:\n%s", key, show)
	return ""
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// bytesOf reads a size as systemd has it: "512M".
func bytesOf(t *testing.T, text string) int {
	t.Helper()
	unit := map[byte]int{'M': 1 << 20, 'G': 1 << 30}[text[len(text)-1]]
	return number(t, text[:len(text)-1]) * unit
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(strings.Trim(text, `"`))
	if err != nil {
		t.Fatal(err)
	}
	return d
}
