package oracle

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dockerconfig "github.com/docker/cli/cli/config"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	containers "go.podman.io/image/v5/pkg/docker/config"
	"go.podman.io/image/v5/types"
	kubelet "k8s.io/kubernetes/pkg/credentialprovider"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

// keys are keys of the documents. Each has its own text as the user name, so that the login that a
// tool returns says which key it chose.
var keys = []string{
	"quay.io", "https://quay.io", "http://quay.io", "https://quay.io/v1/", "https://quay.io/v2/", "quay.io/v2", "quay.io/",
	"quay.io/org", "quay.io/org/app", "quay.io/other", "https://quay.io/any/path", "*.io", "quay.io:443", "quay.*",
	"https://index.docker.io/v1/", "docker.io", "index.docker.io", "docker.io/library",
	"registry.corp.example:5000", "*.corp.example:5000", "registry.corp.example",
}

var images = []string{
	"quay.io/org/app", "quay.io/organisation/app", "quay.io/else", "docker.io/library/alpine",
	"registry.corp.example:5000/a/b", "registry.corp.example/a/b", "ghcr.io/a/b",
}

// empty makes the entry of a key an empty object, as docker leaves one if a helper has the login.
const empty = "{}"

// document has a login for each key.
func document(old bool, entries map[string]string) []byte {
	auths := map[string]any{}
	for key, user := range entries {
		if user == empty {
			auths[key] = struct{}{}
			continue
		}
		auths[key] = map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(user, ":", "_") + ":p"))}
	}
	var data []byte
	if old {
		data, _ = json.Marshal(auths)
	} else {
		data, _ = json.Marshal(map[string]any{"auths": auths})
	}
	return data
}

// tools returns which user each tool would log in as.
func tools(t *testing.T, path string, old bool, image string) map[string]string {
	t.Helper()
	registry, _, _ := strings.Cut(image, "/")
	chosen := map[string]string{}
	sys := &types.SystemContext{AuthFilePath: path}
	if old {
		sys = &types.SystemContext{LegacyFormatAuthFilePath: path}
	}
	if c, err := containers.GetCredentials(sys, image); err == nil {
		chosen["containers"] = c.Username
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config kubelet.DockerConfig
	if old {
		config, err = kubelet.ReadDockerConfigFileFromBytes(data)
	} else {
		config, err = kubelet.ReadSpecificDockerConfigJSONFile(path)
	}
	if err == nil {
		var ring kubelet.BasicDockerKeyring
		ring.Add(nil, config)
		if found, ok := ring.Lookup(image); ok {
			chosen["kubelet"] = found[0].Username
		}
	}
	if old {
		return chosen // the others read .dockercfg no more
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	docker, err := dockerconfig.LoadFromReader(f)
	if err != nil {
		t.Fatal(err)
	}
	key := registry
	if registry == "docker.io" {
		key = "https://index.docker.io/v1/"
	}
	if c, err := docker.GetAuthConfig(key); err == nil {
		chosen["docker"] = c.Username
	}
	t.Setenv("DOCKER_CONFIG", filepath.Dir(path))
	repository, err := name.NewRepository(image)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := authn.DefaultKeychain.Resolve(repository); err == nil {
		if c, err := a.Authorization(); err == nil {
			chosen["go-containerregistry"] = c.Username
		}
	}
	return chosen
}

func ours(t *testing.T, path, image string) string {
	t.Helper()
	registry, repository, _ := strings.Cut(image, "/")
	c, err := (&credential.File{Path: path}).Lookup(t.Context(), registry, repository)
	if err != nil {
		t.Fatal(err)
	}
	return c.Username
}

// meaning returns the host and the namespace that the key of a user has for sidemirror.
func meaning(user string) (host, namespace string) {
	for _, key := range keys {
		if strings.ReplaceAll(key, ":", "_") == user {
			rest := key
			_, after, scheme := strings.Cut(key, "://")
			if scheme {
				rest = after
			}
			host, namespace, _ = strings.Cut(rest, "/")
			if scheme || strings.Trim(namespace, "/") == "v2" {
				namespace = ""
			}
			return host, strings.Trim(namespace, "/")
		}
	}
	return "", ""
}

func covers(user, image string) bool {
	_, repository, _ := strings.Cut(image, "/")
	_, namespace := meaning(user)
	return namespace == "" || repository == namespace || strings.HasPrefix(repository, namespace+"/")
}

// judge returns what is wrong with sidemirror's choice, given those of the tools; "" for nothing.
//
//   - A login that no tool would send if it were alone in the file is wrong.
//   - None, although a tool has one, is right only if its key is a namespace that the image is not
//     in: Docker takes such a key for the whole host, and the kubelet for the beginning of a text.
//   - Another one than a tool's is right only if its namespace is at least as long.
func judge(mine string, alone bool, chosen map[string]string, image string) string {
	for tool, theirs := range chosen {
		switch {
		case theirs == "", theirs == mine:
		case mine == "" && covers(theirs, image):
			return fmt.Sprintf("%s sends %q, and sidemirror nothing", tool, theirs)
		case mine != "" && covers(theirs, image):
			_, theirNamespace := meaning(theirs)
			_, namespace := meaning(mine)
			if len(namespace) < len(theirNamespace) {
				return fmt.Sprintf("%s sends %q, and sidemirror the less specific %q", tool, theirs, mine)
			}
		}
	}
	if mine != "" && !alone {
		return fmt.Sprintf("no tool sends %q", mine)
	}
	return ""
}

func TestFilesAreReadAsTheToolsReadThem(t *testing.T) {
	documents, compared, differing := 0, 0, 0
	put := func(old bool, entries map[string]string) (path string) {
		path = filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, document(old, entries), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sentAlone := map[string]bool{} // by a tool: the user, for the image, if no other is in the file
	for _, key := range keys {
		path := put(false, map[string]string{key: key})
		for _, image := range images {
			for _, theirs := range tools(t, path, false, image) {
				sentAlone[theirs+" "+image] = true
			}
		}
	}
	compare := func(old bool, entries map[string]string) {
		t.Helper()
		documents++
		path := put(old, entries)
		for _, image := range images {
			chosen, mine := tools(t, path, old, image), ours(t, path, image)
			compared++
			answers := map[string]bool{}
			for _, theirs := range chosen {
				answers[theirs] = true
			}
			if len(answers) > 1 {
				differing++
			}
			if wrong := judge(mine, sentAlone[mine+" "+image], chosen, image); wrong != "" {
				t.Errorf("%s of %v: %s (%v)", image, entries, wrong, chosen)
			}
		}
	}
	for _, old := range []bool{false, true} {
		for i, first := range keys {
			compare(old, map[string]string{first: first})
			for _, second := range keys[i+1:] {
				compare(old, map[string]string{first: first, second: second})
			}
		}
	}
	t.Logf("%d documents, %d look-ups, the tools differ in %d", documents, compared, differing)
	if documents < 200 {
		t.Error("too few")
	}
}

// What containers/image means by it. The others know no namespaces.
func TestAnEmptyEntryOfANamespaceMeansAnonymousAsForContainersImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, document(false, map[string]string{"quay.io": "quay.io", "quay.io/org": empty}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, image := range images[:3] {
		if mine, theirs := ours(t, path, image), tools(t, path, false, image)["containers"]; mine != theirs {
			t.Errorf("%s: %q, and containers/image %q", image, mine, theirs)
		}
	}
}

// A user name and a password come back as each tool reads them.
func TestLoginsAreReadAsTheToolsReadThem(t *testing.T) {
	entry := func(user, password string) string {
		return `{"auth":"` + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + `"}`
	}
	for name, value := range map[string]string{
		"plain": entry("me", "p"), "colons": entry("me", "a:b:c"), "lines": entry("_json_key", "{\n \"a\": 1\n}\n"),
		"OpenShift's": entry("<token>", "jwt"), "not ASCII": entry("mé", "pässwörd"), "fields": `{"username":"me","password":"p"}`,
		"both": `{"username":"x","password":"y","auth":"bWU6cA=="}`, "empty": `{}`,
	} {
		path := filepath.Join(t.TempDir(), "config.json")
		if err := os.WriteFile(path, []byte(`{"auths":{"quay.io":`+value+`}}`), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := (&credential.File{Path: path}).Lookup(t.Context(), "quay.io", "a/b")
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		docker, err := dockerconfig.LoadFromReader(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := docker.GetAuthConfig("quay.io")
		if err != nil || theirs.Username != c.Username || theirs.Password != c.Password.Reveal() || theirs.IdentityToken != c.IdentityToken.Reveal() {
			t.Errorf("%s: docker reads %q %q, sidemirror %q %q", name, theirs.Username, theirs.Password, c.Username, c.Password.Reveal())
		}
	}
}
