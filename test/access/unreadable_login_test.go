package access

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// unreadable are files with logins that the daemon cannot use.
var unreadable = map[string]func(path string) error{
	"half-written":                 func(path string) error { return os.WriteFile(path, []byte(`{"auths":{"x.test":{"au`), 0o600) },
	"empty":                        func(path string) error { return os.WriteFile(path, nil, 0o600) },
	"readable by every user":       func(path string) error { return os.WriteFile(path, []byte(config("x.test", "u:p")), 0o644) },
	"a folder":                     func(path string) error { return os.Mkdir(path, 0o700) },
	"behind a folder that is none": func(path string) error { return os.Symlink("/etc/hostname/config.json", path) },
	"endless":                      func(path string) error { return os.Symlink("/dev/zero", path) },
}

func config(host, login string) string {
	return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(login)))
}

// A daemon.json that root alone could read once took all images away, the public ones too.
func TestAFileWithLoginsThatCannotBeReadLeavesPublicImagesAvailable(t *testing.T) {
	for name, make := range unreadable {
		t.Run(name, func(t *testing.T) {
			public, private := quirky.New(t, quirky.Options{}), quirky.New(t, private("Bearer"))
			other := quirky.New(t, quirky.Options{Auth: quirky.Auth{Scheme: "Basic", Users: map[string]string{user: password}, Private: []string{"team/"}}})
			for _, up := range []*quirky.Server{public, private, other} {
				up.Add(repo, "v1", image)
			}
			private.Add("open/app", "v1", image)
			dir := t.TempDir()
			bad, good := filepath.Join(dir, "bad.json"), filepath.Join(dir, "good.json")
			if err := make(bad); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(good, []byte(config(other.Host(), user+":"+password)), 0o600); err != nil {
				t.Fatal(err)
			}
			s := harness.Start(t, harness.Options{
				Registries: []harness.Registry{
					{Name: "public.test", Upstreams: []string{public.URL()}},
					{Name: "private.test", Upstreams: []string{private.URL()}},
					{Name: "other.test", Upstreams: []string{other.URL()}},
				},
				Env: []string{"SIDEMIRROR_CREDENTIALS_FILES=" + bad + "," + good},
			})
			for _, form := range []string{"/v2/%[2]s/manifests/v1?ns=%[1]s", "/v2/%[1]s/%[2]s/manifests/v1"} {
				for registry, repository := range map[string]string{"public.test": repo, "private.test": "open/app", "other.test": repo} {
					s.Get(fmt.Sprintf(form, registry, repository), nil).Whole(t, registry+"/"+repository, image.Bytes)
				}
				refused := s.Get(fmt.Sprintf(form, "private.test", repo), nil)
				refused.Is(t, "a private image", 401)
				if !strings.Contains(refused.Says(), "asked without a login, because it cannot read one: run sidemirror status") {
					t.Errorf("the refusal does not give the reason:%s", refused.Says())
				}
			}
			s.Eventually("the log names the file", func() bool {
				return strings.Contains(s.Log(), bad) && strings.Contains(s.Log(), "level=warning")
			})
			if err := os.RemoveAll(bad); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(bad, []byte(config(private.Host(), user+":"+password)), 0o600); err != nil {
				t.Fatal(err)
			}
			s.Get(of("private.test", "manifests/v1"), nil).Whole(t, "a private image with a login that is readable again", image.Bytes)
		})
	}
}

// One entry of a file that is of no use must not take the others with it.
func TestAnEntryOfNoUseAffectsItsOwnRegistryOnly(t *testing.T) {
	private, public := quirky.New(t, private("Basic")), quirky.New(t, quirky.Options{})
	private.Add(repo, "v1", image)
	public.Add(repo, "v1", image)
	file := filepath.Join(t.TempDir(), "config.json")
	text := fmt.Sprintf(`{"auths":{%q:{"registrytoken":"canary-token-61aa"},%q:{"auth":%q}}}`,
		public.Host(), private.Host(), base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := harness.Start(t, harness.Options{
		Registries: []harness.Registry{
			{Name: "public.test", Upstreams: []string{public.URL()}},
			{Name: "private.test", Upstreams: []string{private.URL()}},
		},
		Env:     []string{"SIDEMIRROR_CREDENTIALS_FILES=" + file},
		Secrets: []string{"canary-token-61aa"},
	})
	s.Get(of("public.test", "manifests/v1"), nil).Whole(t, "the registry of that entry", image.Bytes)
	s.Get(of("private.test", "manifests/v1"), nil).Whole(t, "another registry of that file", image.Bytes)
	s.Eventually("the log names the entry", func() bool { return strings.Contains(s.Log(), "the login for "+public.Host()) })
}
