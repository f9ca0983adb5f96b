package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestABundleHasNoSecret(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`dial http://me:canary@proxy.corp.example:3128: refused`, `https://canary@registry.example/v2/`,
		`Authorization: Bearer canary.canary.canary`, `authorization: Basic Y2FuYXJ5canary=`,
		`{"auths":{"ghcr.io":{"auth":"canary"}}}`, `"identitytoken": "canary"`, `password=canary`, `password = "canary and more"`,
		`https://s3.example/x?X-Amz-Signature=canary&X-Amz-Date=1`, `access_token":"canary"`, `SECRET: canary`,
	} {
		got := string(withoutSecrets([]byte(text)))
		if strings.Contains(got, "canary") || !strings.Contains(got, "[removed]") {
			t.Errorf("%s\nbecomes %s", text, got)
		}
	}
	for _, text := range []string{
		"kind=token method=GET registry=docker.io status=200", `Www-Authenticate: Bearer realm="https://auth.docker.io/token"`,
		"sidemirror asked without a login", `client_auth = "auto"`, "http://127.0.0.1:305",
	} {
		if got := string(withoutSecrets([]byte(text))); got != text {
			t.Errorf("%s\nbecomes %s", text, got)
		}
	}
}

func TestABundleOverwritesNoFile(t *testing.T) {
	root := tree(t, map[string]string{"etc/docker/daemon.json": "{}"})
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := invoke(t, "doctor", "--root", root, "--bundle", file)
	if stdout != "" {
		t.Errorf("it has examined the host first:\n%s", stdout)
	}
	if after, err := os.ReadFile(file); code != 1 || err != nil || string(after) != "mine" {
		t.Errorf("exit code %d, %v, %q", code, err, after)
	}
	wants(t, stderr, "exists already")
}

func TestABundleThatIsNotWrittenLeavesNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	if _, _, code := invoke(t, "doctor", "--root", filepath.Join(t.TempDir(), "none"), "--bundle", file); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
}
