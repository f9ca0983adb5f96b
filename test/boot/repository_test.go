package boot

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/process"
	"github.com/sidemirror/sidemirror/test/release"
)

// packageHost is the web server with the repository, in the network of a machine.
const packageHost = "packages.example"

// publish serves a folder at http://packages.example in the machine's network.
func (m *machine) publish(folder string) {
	m.t.Helper()
	listener, err := listenIn(m.holder, outside+":80")
	if err != nil {
		m.t.Fatal(err)
	}
	server := &http.Server{Handler: http.FileServer(http.Dir(folder)), ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener) // until it is closed
	}()
	m.t.Cleanup(func() {
		_ = server.Close()
		<-served
	})
	m.run("echo '" + outside + " " + packageHost + "' >>/etc/hosts")
}

// A host that knows nothing but the keyring package installs sidemirror by its name and upgrades it,
// and takes nothing that is not signed with the key in that package.
func TestAptInstallsAndUpgradesFromTheSignedRepository(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"gpg", "reprepro", "createrepo_c", "rpmsign"} {
		process.Path(t, name)
	}
	m, net := freshHost(t, trixie)
	folder, key, url := t.TempDir(), release.Key(t), "http://"+packageHost
	release.Build(t, folder, url, key, oldVersion)
	m.publish(folder)
	m.run("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d") // the machine's internet has no Debian
	apt := func(args string) (string, error) {
		return m.try("apt-get -o APT::Update::Error-Mode=any " + args)
	}
	version := func() string { return strings.Fields(m.run("sidemirror version"))[1] }

	m.step("without the key", func(t testing.TB) {
		m.write("/etc/apt/sources.list", "deb "+url+"/apt stable main\n", 0o644)
		if out, err := apt("update"); err == nil || !strings.Contains(out, "is not signed") {
			t.Errorf("apt trusts a key that it was not given: %v\n%s", err, out)
		}
		m.run("rm /etc/apt/sources.list")
	})
	m.step("install", func(t testing.TB) {
		m.run("/usr/lib/apt/apt-helper download-file " + url + "/sidemirror-archive-keyring_all.deb /srv/sidemirror-archive-keyring_all.deb")
		for _, args := range []string{"install -y /srv/sidemirror-archive-keyring_all.deb", "update", "install -y sidemirror"} {
			if out, err := apt(args); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		if got := version(); got != oldVersion {
			t.Errorf("version %s is installed", got)
		}
		m.login(net)
		m.through(net, "installed")
	})
	release.Build(t, folder, url, key, newVersion)
	m.step("a changed list", func(t testing.TB) {
		restore := m.change(filepath.Join(folder, "apt/dists/stable/InRelease"), "Label: sidemirror", "Label: sidemirroR")
		defer restore()
		if out, err := apt("update"); err == nil || !strings.Contains(out, "signature verification failed") {
			t.Errorf("apt accepts it: %v\n%s", err, out)
		}
	})
	m.step("a changed package", func(t testing.TB) {
		debs, err := filepath.Glob(filepath.Join(folder, "apt/pool/main/s/sidemirror/sidemirror_"+newVersion+"_*.deb"))
		if err != nil || len(debs) != 2 {
			t.Fatalf("the pool has %q, %v", debs, err)
		}
		for _, deb := range debs {
			defer m.change(deb, "debian-binary", "debian-Binary")()
		}
		if out, err := apt("update"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if out, err := apt("upgrade -y"); err == nil || !strings.Contains(out, "Hash Sum mismatch") {
			t.Errorf("apt accepts it: %v\n%s", err, out)
		}
		if got := version(); got != oldVersion {
			t.Errorf("version %s is installed", got)
		}
		m.through(net, "refused")
	})
	m.step("upgrade", func(t testing.TB) {
		if out, err := apt("upgrade -y"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := version(); got != newVersion {
			t.Errorf("version %s is installed", got)
		}
		m.through(net, "upgraded")
	})
	m.step("remove", func(t testing.TB) {
		if out, err := apt("purge -y sidemirror"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got, err := os.ReadFile(m.path("/etc/docker/daemon.json")); err != nil || string(got) != daemonJSON {
			t.Errorf("daemon.json is %q, %v", got, err)
		}
	})
}

// change changes text in a published file, and returns a function that restores the file.
func (m *machine) change(file, before, after string) (restore func()) {
	m.t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		m.t.Fatal(err)
	}
	if !strings.Contains(string(content), before) {
		m.t.Fatalf("%s does not contain %q", file, before)
	}
	at := time.Now()
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			m.t.Error(err)
		}
		// HTTP knows whole seconds only, and apt asks for what was modified since.
		at = at.Add(time.Hour)
		if err := os.Chtimes(file, at, at); err != nil {
			m.t.Error(err)
		}
	}
	write(strings.Replace(string(content), before, after, 1))
	return func() { write(string(content)) }
}
