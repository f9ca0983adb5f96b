package hosts_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
)

// loginSources are where sidemirror's logins can come from, in the order in which it asks. Each starts
// it with that source alone.
var loginSources = []struct {
	name  string
	start func(t *testing.T, r *rig) harness.Options
}{
	{"sidemirror login", func(t *testing.T, r *rig) harness.Options { return r.without() }},
	{"credential of systemd", func(t *testing.T, r *rig) harness.Options {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "registry-test"), r.dockerConfig(), 0o400)
		return r.without("CREDENTIALS_DIRECTORY=" + dir)
	}},
	{"file", func(_ *testing.T, r *rig) harness.Options { return r.served }},
	{"DOCKER_AUTH_CONFIG", func(_ *testing.T, r *rig) harness.Options { return r.without("DOCKER_AUTH_CONFIG=" + r.dockerConfig()) }},
	{"helper", func(t *testing.T, r *rig) harness.Options {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, "docker-credential-test"),
			fmt.Sprintf("#!/bin/sh\necho '{\"Username\":%q,\"Secret\":%q}'\n", r.upstream.User, r.upstream.Password), 0o755)
		return r.without("SIDEMIRROR_CREDENTIALS_HELPERS="+r.upstream.URL.Hostname()+"=test", "SIDEMIRROR_CREDENTIALS_HELPER_DIRS="+dir)
	}},
	{"plugin", func(t *testing.T, r *rig) harness.Options {
		dir := t.TempDir()
		host := r.upstream.URL.Hostname()
		writeFile(t, filepath.Join(dir, "test-plugin"), "#!/bin/sh\necho '"+fmt.Sprintf(
			`{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","auth":{%q:{"username":%q,"password":%q}}}`,
			host, r.upstream.User, r.upstream.Password)+"'\n", 0o755)
		config := filepath.Join(t.TempDir(), "config.yaml")
		writeFile(t, config, fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: test-plugin
    matchImages: [%q]
    defaultCacheDuration: 12h
    apiVersion: credentialprovider.kubelet.k8s.io/v1
`, host), 0o600)
		return r.without("SIDEMIRROR_CREDENTIALS_PLUGINS="+config, "SIDEMIRROR_CREDENTIALS_PLUGIN_DIR="+dir)
	}},
}

// without returns the options of the rig without logins, and with variables.
func (r *rig) without(env ...string) harness.Options {
	o := r.served
	o.Logins, o.Env, o.Secrets = nil, env, []string{r.upstream.Password}
	return o
}

func (r *rig) dockerConfig() string {
	pair := base64.StdEncoding.EncodeToString([]byte(r.upstream.User + ":" + r.upstream.Password))
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, r.upstream.URL.Hostname(), pair)
}

func writeFile(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// tool returns a pull by a command on the host. Its arguments end with the reference.
func (r *rig) tool(t *testing.T, prefix string, args ...string) by {
	t.Helper()
	return r.pulled(t, func(repository, _ string) error {
		return r.runs(t, append(args[:len(args):len(args)], prefix+repository+":v1")...)
	})
}

func (r *rig) byPodman(t *testing.T, name string) by {
	t.Helper()
	return r.tool(t, name+"/", "podman", "--cgroup-manager", "cgroupfs", "--events-backend", "none", "pull", "--quiet")
}

// The table of docs/credentials.md: no engine has a login, and each private image is new.
func TestEveryEnginePullsPrivateImagesWithLoginsFromEverySource(t *testing.T) {
	for _, g := range []engine.Generation{engine.Bookworm, engine.Built} {
		t.Run(string(g), func(t *testing.T) {
			r := newRig(t, rigOptions{generation: g, private: true, files: toolsFiles})
			if err := r.triesCRI(t); err == nil {
				t.Fatal("a private image can be pulled without sidemirror and without a login")
			}
			r.do(t, 1, "apply", "--restart-containerd") // without systemd, the restart is the test's
			r.host.StartContainerd(t)
			r.host.StartDocker(t)
			r.eachSource(t, func(t *testing.T) { r.expectAll(t, g) })
		})
	}
	t.Run("buildkitd", func(t *testing.T) {
		r := newRig(t, rigOptions{generation: engine.BuildKit, private: true, tools: true})
		r.do(t, 0, "apply", "--engine", "buildkit")
		r.startBuildkit(t)
		r.eachSource(t, func(t *testing.T) {
			for _, name := range []string{hubName, otherName} {
				if got := r.buildFrom(t, name); got != viaSidemirror {
					t.Errorf("%s: the pull went %s", name, got)
				}
			}
		})
	})
}

// eachSource runs a part of the test while sidemirror has its login from each source in turn.
func (r *rig) eachSource(t *testing.T, part func(t *testing.T)) {
	t.Helper()
	for _, source := range loginSources {
		t.Run(source.name, func(t *testing.T) {
			r.sidemirror.Stop()
			r.sidemirror = harness.Start(t, source.start(t, r))
			if source.name == "sidemirror login" {
				r.logIn(t)
			}
			part(t)
		})
	}
}

// logIn stores the login as a person does.
func (r *rig) logIn(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), harness.Binary(t), "--config", filepath.Join(r.sidemirror.Dir(), "config.toml"),
		"login", r.upstream.URL.Hostname(), "--username", r.upstream.User, "--password-stdin")
	cmd.Env = []string{"HOME=" + t.TempDir()}
	cmd.Stdin = strings.NewReader(r.upstream.Password)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatal(errors.Join(err, errors.New(string(out))))
	}
}

// expectAll pulls by every engine of the host, and expects all of it through sidemirror.
func (r *rig) expectAll(t *testing.T, g engine.Generation) {
	t.Helper()
	ways := map[string]by{
		"CRI, docker.io":    r.byCRI(t, hubName),
		"CRI, another":      r.byCRI(t, otherName),
		"docker":            r.byDocker(t, ""),
		"podman, docker.io": r.byPodman(t, hubName),
		"podman, another":   r.byPodman(t, otherName),
	}
	for _, name := range []string{hubName, otherName} {
		ways["ctr, "+name] = r.tool(t, name+"/", "ctr", "images", "pull", "--hosts-dir", "/etc/containerd/certs.d")
		if g == engine.Built || name == hubName { // Docker before 28 has mirrors for Docker Hub only
			ways["docker build, "+name] = r.pulled(t, func(repository, _ string) error { return r.buildByDocker(t, name+"/"+repository) })
		}
	}
	if g == engine.Built { // the containerd store
		ways["docker, another"] = r.byDocker(t, otherName+"/")
	} else {
		ways["docker, by prefix"] = r.byDocker(t, listen+"/"+otherName+"/")
	}
	for name, got := range ways {
		if got != viaSidemirror {
			t.Errorf("%s: the pull went %s", name, got)
		}
	}
}
