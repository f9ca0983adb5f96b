package hostconfig

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
)

// realContainerd starts the containerd of this machine in folders of its own, with registry
// for the section of CRI's registries and more at the file's top. It answers with its socket.
func realContainerd(t *testing.T, more, registry string) string {
	t.Helper()
	program, err := exec.LookPath("containerd")
	if os.Geteuid() != 0 || err != nil {
		t.Skip("needs root and a containerd; test/setup.sh installs one")
	}
	dir, err := os.MkdirTemp("", "hostconfig-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket, config := filepath.Join(dir, "c.sock"), filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\n%s\n[grpc]\naddress = %q\n[plugins.\"io.containerd.internal.v1.opt\"]\npath = %q\n%s\n%s\n",
		dir+"/root", dir+"/state", more, socket, dir+"/opt", criV2, registry)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var output bytes.Buffer
	cmd := exec.Command(program, "--config", config)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(output.String()[max(0, output.Len()-4096):])
		}
	})
	for range 600 {
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			return socket
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("containerd does not listen")
	return ""
}

// What we read in containerd's files is what it says itself, whichever version this machine has.
func TestContainerd21To23OurReadingIsContainerds(t *testing.T) {
	program, err := exec.LookPath("containerd")
	if err != nil {
		t.Skip("needs a containerd; test/setup.sh installs one")
	}
	said := runBounded(t.Context(), program, "--version")
	v := parseVersion(findVersion(said))
	set := func(section, folder string) string {
		return strings.Replace(section, "]\n", "]", 1) + "\nconfig_path = \"" + folder + "\"\n"
	}
	v2, v3 := "version = 2\n", "version = 3\n"
	for name, test := range map[string]struct {
		files map[string]string
		only2 bool // what 1.x does not start with
	}{
		"unset":                   {map[string]string{"main": v2}, false},
		"one":                     {map[string]string{"main": v2 + set(criV2, "/srv/a")}, false},
		"a list":                  {map[string]string{"main": v2 + set(criV2, "/srv/a:/srv/b")}, false},
		"overridden":              {map[string]string{"main": v2 + "imports = ['d/*.toml']\n" + set(criV2, "/srv/a"), "d/x.toml": v2 + set(criV2, "/srv/b")}, false},
		"emptied":                 {map[string]string{"main": v2 + "imports = ['d/*.toml']\n" + set(criV2, "/srv/a"), "d/x.toml": v2 + set(criV2, "")}, false},
		"hidden":                  {map[string]string{"main": v2 + "imports = ['d/*.toml']\n" + set(criV2, "/srv/a"), "d/x.toml": v2 + runcV2}, false},
		"not imported":            {map[string]string{"main": v2 + set(criV2, "/srv/a"), "conf.d/x.toml": v2 + set(criV2, "/srv/b")}, false},
		"imported by an import":   {map[string]string{"main": v2 + "imports = ['d/*.toml']\n", "d/x.toml": v2 + "imports = ['../y.toml']\n", "y.toml": v2 + set(criV2, "/srv/b")}, false},
		"folders by a pattern":    {map[string]string{"main": v2 + "imports = ['*/y.toml']\n", "d/y.toml": v2 + set(criV2, "/srv/b")}, false},
		"two imports, in order":   {map[string]string{"main": v2 + "imports = ['z.toml', 'a.toml']\n", "a.toml": v2 + set(criV2, "/srv/a"), "z.toml": v2 + set(criV2, "/srv/z")}, false},
		"a loop":                  {map[string]string{"main": v2 + "imports = ['a.toml']\n", "a.toml": v2 + "imports = ['main']\n" + set(criV2, "/srv/a")}, false},
		"nothing for a pattern":   {map[string]string{"main": v2 + "imports = ['gone/*.toml']\n" + set(criV2, "/srv/a")}, false},
		"off":                     {map[string]string{"main": v2 + "disabled_plugins = ['io.containerd.grpc.v1.cri']\n"}, false},
		"off in an import":        {map[string]string{"main": v2 + "imports = ['a.toml']\n", "a.toml": v2 + "disabled_plugins = ['io.containerd.grpc.v1.cri']\n"}, false},
		"version 3":               {map[string]string{"main": v3 + set(criV3, "/srv/a")}, true},
		"version 3 imports 2":     {map[string]string{"main": v3 + "imports = ['a.toml']\n" + set(criV3, "/srv/a"), "a.toml": v2 + set(criV2, "/srv/b")}, true},
		"version 2 imports 3":     {map[string]string{"main": v2 + "imports = ['a.toml']\n" + set(criV2, "/srv/a"), "a.toml": v3 + set(criV3, "/srv/b")}, true},
		"a drop-in as we make it": {map[string]string{"main": v3 + "imports = ['d/*.toml']\n" + set(criV3, "/srv/a:/srv/b"), "d/99-sidemirror.toml": string(splice.NewConfig(3, splice.SectionV3, "/srv/a"))}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if test.only2 && !v.atLeast(2, 0) {
				return
			}
			dir := t.TempDir()
			for name, text := range test.files {
				at := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			tree, err := hostfs.Open("/")
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			c := &containerd{planner: &planner{tree: tree, host: &Host{Root: "/"}}, config: filepath.Join(dir, "main")}
			ours, err := c.effective(v)
			if err != nil {
				t.Fatal(err)
			}
			dump, ok := c.host.askConfig(t.Context(), program, c.config, ours.sum)
			if !ok || dump.path != ours.path || dump.disabled != ours.disabled {
				t.Errorf("%s says %q (CRI off: %v), we read %q (%v)", said, dump.path, dump.disabled, ours.path, ours.disabled)
			}
		})
	}
}

// askedUnits is a service manager that notes what it is asked.
type askedUnits struct{ asked []string }

func (u *askedUnits) Reload(_ context.Context, unit string) error {
	u.asked = append(u.asked, "reload "+unit)
	return nil
}

func (u *askedUnits) Restart(_ context.Context, unit string) error {
	u.asked = append(u.asked, "restart "+unit)
	return nil
}

// containerd dies of SIGHUP. A process stands for it here that would, too.
func TestContainerd29IsNeverReloadedNorSignalled(t *testing.T) {
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 1)
	go func() { ended <- fmt.Sprint(cmd.Wait()) }()
	pid := cmd.Process.Pid
	h := host(t, merge(proc(pid, "containerd", 0, "/usr/bin/containerd"), map[string]string{
		containerdConfig: "version = 2\n", "/run/systemd/system/": "",
		fmt.Sprintf("/proc/%d/cgroup", pid): "0::/system.slice/containerd.service\n",
	}))
	h.Versions[Containerd] = "1.7.34"
	units := &askedUnits{}
	h.Units = units
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	h.apply(t, containerdOnly("r.example", "more.example"))
	if len(units.asked) != 0 {
		t.Errorf("hosts.toml files need no signal: %q", units.asked)
	}
	h.apply(t, restarting())
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
	if want := "restart containerd.service"; len(units.asked) != 1 || units.asked[0] != want {
		t.Errorf("asked for %q", units.asked)
	}
	select {
	case how := <-ended:
		t.Errorf("it was ended: %s", how)
	default:
		_ = cmd.Process.Kill()
		<-ended
	}
}

// asking is a host whose containerd is a real one, elsewhere.
type asking struct {
	fakeDockerd
	socket string
}

func (a *asking) Pull(ctx context.Context, q ask, reference string) error {
	q.socket = a.socket
	return system{}.Pull(ctx, q, reference)
}

func TestARealContainerdIsAsked(t *testing.T) {
	for name, test := range map[string]struct{ more, registry, warned string }{
		"config_path": {"", `config_path = "CERTS"`, ""},
		"empty":       {"", `config_path = ""`, "did not come to us"},
		"another":     {"", `config_path = "/nonexistent"`, "did not come to us"},
		"CRI off":     {`disabled_plugins = ["io.containerd.grpc.v1.cri"]`, "", "CRI service does not run: unknown service"},
	} {
		t.Run(name, func(t *testing.T) {
			h, _ := askedHost(t)
			certs := h.path("/srv/hosts")
			socket := realContainerd(t, test.more, strings.Replace(test.registry, "CERTS", certs, 1))
			h.signaler = &asking{fakeDockerd: fakeDockerd{host: h}, socket: socket}
			before := h.snapshot(t)
			began := time.Now()
			result, err := h.try(t, containerdOnly("r.example"))
			t.Logf("%+v in %v", result, time.Since(began))
			if err != nil || (len(result.Asked) == 1) != (test.warned == "") || (len(result.Warnings) == 1) != (test.warned != "") {
				t.Errorf("%+v, %v", result, err)
			}
			contains(t, strings.Join(result.Warnings, "\n"), test.warned)
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

// A socket whose owner lives in another network says nothing: its loopback is not ours.
func TestAnEngineInAnotherNetworkIsNotAsked(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), listenerSocket+"="+dir+"/s")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = cmd.Process.Kill(), cmd.Wait() }()
	var conn net.Conn
	var err error
	for range 600 {
		if conn, err = net.Dial("unix", dir+"/s"); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if sameNetwork(conn.(*net.UnixConn)) {
		t.Error("taken for ours")
	}
	l, err := net.Listen("unix", dir+"/ours")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.Dial("unix", dir+"/ours")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if !sameNetwork(ours.(*net.UnixConn)) {
		t.Error("our own is not taken for ours")
	}
}

// listenerSocket names the socket that this test binary, run once more, listens at.
const listenerSocket = "SIDEMIRROR_TEST_LISTEN"

func listenForEver() int {
	l, err := net.Listen("unix", os.Getenv(listenerSocket))
	for err == nil {
		_, err = l.Accept()
	}
	return 3
}
