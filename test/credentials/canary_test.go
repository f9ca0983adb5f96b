package credentials

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
)

// forms are the ways in which a secret could show: as it is, and in the base64 of a text that has it.
func forms(secret string) []string {
	list := []string{secret}
	for before := range 3 {
		text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", before) + secret))
		list = append(list, text[(before*8+5)/6:len(text)-4]) // without what its neighbours change
	}
	return list
}

func TestTheFormsOfASecretAreFound(t *testing.T) {
	for _, before := range []string{"", "u", "me", "abc", "alice"} {
		text := base64.StdEncoding.EncodeToString([]byte(before + ":" + canary + "\n"))
		if !has(text, canary) {
			t.Errorf("not found after %q: %s", before, text)
		}
	}
	if has(base64.StdEncoding.EncodeToString([]byte("me:another-secret-0000")), canary) {
		t.Error("found where it is not")
	}
}

func has(text, secret string) bool {
	for _, form := range forms(secret) {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}

// canarySources are the settings for each source of logins, and the files that hold the secret.
func canarySources(t *testing.T, host string) map[string][]string {
	t.Helper()
	passed, dir, plugins := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, filepath.Join(passed, "registry-corp"), auths(host, "me"), 0o400)
	store := write(t, filepath.Join(dir, "store.json"), auths(host, "me"), 0o600)
	file := write(t, filepath.Join(dir, "config.json"), auths(host, "me"), 0o600)
	tools := helpers(t, map[string]string{"vault": `echo '{"Username":"me","Secret":"` + canary + `"}'`})
	write(t, filepath.Join(plugins, "p"), "#!/bin/sh\necho '"+fmt.Sprintf(`{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Global","auth":{%q:{"username":"me","password":%q}}}`, host, canary)+"'\n", 0o755)
	plugin := write(t, filepath.Join(dir, "p.json"), fmt.Sprintf(`{"kind":"CredentialProviderConfig","apiVersion":"kubelet.config.k8s.io/v1","providers":[{"name":"p","matchImages":[%q],"defaultCacheDuration":"1h","apiVersion":"credentialprovider.kubelet.k8s.io/v1"}]}`, host), 0o600)
	return map[string][]string{
		"store":       {"SIDEMIRROR_CREDENTIALS_STORE=" + store},
		"systemd":     {"CREDENTIALS_DIRECTORY=" + passed},
		"file":        {"SIDEMIRROR_CREDENTIALS_FILES=" + file},
		"environment": {"DOCKER_AUTH_CONFIG=" + auths(host, "me")},
		"helper":      {"SIDEMIRROR_CREDENTIALS_HELPERS=" + host + "=vault", "SIDEMIRROR_CREDENTIALS_HELPER_DIRS=" + tools},
		"plugin":      {"SIDEMIRROR_CREDENTIALS_PLUGINS=" + plugin, "SIDEMIRROR_CREDENTIALS_PLUGIN_DIR=" + plugins},
	}
}

// The log is that of level debug, which has all lines of the others.
func TestNoOutputHasTheSecretOfAnySource(t *testing.T) {
	for _, source := range []string{"store", "systemd", "file", "environment", "helper", "plugin"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t, 0)
			i.accept(canary)
			run := t.TempDir()
			settings := append(canarySources(t, i.host())[source], "RUNTIME_DIRECTORY="+run)
			s := i.serve(t, settings...)
			s.Get(i.manifest(), nil).Whole(t, "a pull with the login", image.Bytes)
			i.accept("another-password")
			texts := map[string]string{}
			for name, path := range map[string]string{
				"a refused pull": "/v2/" + repo + "/manifests/other?ns=" + i.host(), "the page": "/", "the base": "/v2/",
				"a list": "/v2/" + repo + "/tags/list?ns=" + i.host(), "an unknown registry": "/v2/a/b/manifests/c?ns=unknown.test",
			} {
				a := s.Get(path, nil)
				texts[name] = fmt.Sprint(a.Header, a.Says())
			}
			state := filepath.Join(run, "state.json")
			s.Eventually("the state says that the login is refused", func() bool {
				data, _ := os.ReadFile(state)
				return strings.Contains(string(data), "login-refused")
			})
			check := exec.CommandContext(t.Context(), harness.Binary(t), "--config", filepath.Join(s.Dir(), "config.toml"), "config", "check")
			check.Env = append([]string{"HOME=" + t.TempDir()}, settings...)
			out, _ := check.CombinedOutput()
			texts["config check"] = string(out)
			for _, name := range []string{"cmdline", "environ", "status", "limits"} {
				if name == "environ" && source == "environment" {
					continue // there it is, and only root can read that
				}
				texts["/proc/PID/"+name] = read(t, fmt.Sprintf("/proc/%d/%s", s.PID(), name))
			}
			if limits := texts["/proc/PID/limits"]; !strings.Contains(strings.Join(strings.Fields(limits), " "), "Max core file size 0 0 bytes") {
				t.Errorf("core files are possible:\n%s", limits)
			}
			// The dump of its goroutines is in the log, and nothing is in its folder.
			s.Abort()
			if texts["the log"] = s.Log(); !strings.Contains(texts["the log"], "SIGABRT") {
				t.Error("the log has no dump")
			}
			for name, text := range texts {
				if has(text, canary) {
					t.Errorf("%s has the secret:\n%s", name, text)
				}
			}
			filesWithout(t, run)
			filesWithout(t, s.Dir())
		})
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// filesWithout fails the test if a file below a folder has the secret.
func filesWithout(t *testing.T, folder string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		if has(read(t, path), canary) {
			t.Errorf("%s has the secret", path)
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Errorf("%d files, %v", files, err)
	}
}

// A core file, or a look into its memory, would show the logins to its own user. The files in /proc of
// a process that leaves no core belong to root.
func TestTheDaemonsMemoryIsClosedToItsOwnUser(t *testing.T) {
	s := harness.Start(t, harness.Options{UID: harness.Untrusted})
	other := exec.CommandContext(t.Context(), "sleep", "1000")
	other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: harness.Untrusted, Gid: harness.Untrusted}}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	for pid, want := range map[int]uint32{other.Process.Pid: harness.Untrusted, s.PID(): 0} {
		s.Eventually(fmt.Sprintf("the memory of %d belongs to user %d", pid, want), func() bool {
			info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", pid))
			return err == nil && info.Sys().(*syscall.Stat_t).Uid == want
		})
	}
}
