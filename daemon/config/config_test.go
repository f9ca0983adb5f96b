package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func mustLoad(t *testing.T, text string, environ ...string) *Config {
	t.Helper()
	c, err := Load(writeConfig(t, text), environ)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsServeWithoutAFile(t *testing.T) {
	c := Default()
	var names []string
	for _, r := range c.Registries {
		names = append(names, r.Name+"="+r.Upstreams[0].String())
	}
	want := []string{"docker.io=https://registry-1.docker.io", "ghcr.io=https://ghcr.io", "quay.io=https://quay.io", "registry.k8s.io=https://registry.k8s.io"}
	if !reflect.DeepEqual(names, want) {
		t.Errorf("registries %q, want %q", names, want)
	}
	loaded := mustLoad(t, "")
	if loaded.Listen[0].String() != "127.0.0.1:305" || !loaded.Engine.Docker.Enabled || !loaded.Engine.Containerd.Enabled ||
		loaded.Engine.Containerd.Restart || !reflect.DeepEqual(loaded.Trust.UIDs, []uint32{0}) {
		t.Errorf("an empty file gave %+v", loaded)
	}
}

const everything = `
listen = ["127.0.0.1:305", "[::1]:5116"]
shutdown_timeout = "1m30s"

[registry."docker.io"]
hosts = ["docker.example.lan"]
client_auth = "relay"

[registry."registry.corp.example:5000"]
upstreams = ["https://registry.corp.example:5000/mirror", "http://10.0.0.1:5000"]
ca = "/etc/ssl/corp.pem"
cert = "/etc/ssl/me.pem"
key = "/etc/ssl/me.key"
realms = ["https://sso.corp.example"]
dial_timeout = "2s"
header_timeout = "500ms"

[registry."*"]

[credentials]
files = ["/root/.docker/config.json"]
store = "/srv/credentials.json"

[cache]
dir = "/srv/cache"
max_size = "1.5TiB"
min_free = "2.5%"
max_stale = "720h"
tag_ttl = "90s"
freshness_timeout = "2s"

[trust]
uids = [0, 1_000, 0x3e9]

[engine]
docker = { enabled = false }
containerd.restart = true

[log]
level = "debug"
format = "json"
`

func TestEveryKeyArrives(t *testing.T) {
	c := mustLoad(t, everything)
	hub, corp := c.Registry("docker.io"), c.Registry("registry.corp.example:5000")
	for what, ok := range map[string]bool{
		"listen":       len(c.Listen) == 2 && c.Listen[1].String() == "[::1]:5116",
		"shutdown":     c.ShutdownTimeout == 90*time.Second,
		"hub's own":    hub.Hosts[0] == "docker.example.lan" && hub.ClientAuth == "relay",
		"hub's kept":   len(hub.Upstreams) == 1 && hub.Upstreams[0].Host == "registry-1.docker.io" && hub.DialTimeout == 5*time.Second,
		"upstreams":    len(corp.Upstreams) == 2 && corp.Upstreams[0].Path == "/mirror" && corp.Upstreams[1].Scheme == "http",
		"certificates": corp.CA == "/etc/ssl/corp.pem" && corp.Cert == "/etc/ssl/me.pem" && corp.Key == "/etc/ssl/me.key",
		"realms":       corp.Realms[0] == "https://sso.corp.example",
		"timeouts":     corp.DialTimeout == 2*time.Second && corp.HeaderTimeout == 500*time.Millisecond,
		"any":          c.Registry("*") != nil && c.Registry("*").Upstreams == nil,
		"credentials":  c.Credentials.Files[0] == "/root/.docker/config.json" && c.Credentials.Store == "/srv/credentials.json",
		"cache":        c.Cache.Dir == "/srv/cache" && c.Cache.MaxSize == 3<<39 && c.Cache.MinFree == Free{Percent: 2.5},
		"freshness":    c.Cache.MaxStale == 720*time.Hour && c.Cache.TagTTL == 90*time.Second && c.Cache.FreshnessTimeout == 2*time.Second,
		"uids":         reflect.DeepEqual(c.Trust.UIDs, []uint32{0, 1000, 1001}),
		"engines":      !c.Engine.Docker.Enabled && c.Engine.Containerd.Enabled && c.Engine.Containerd.Restart,
		"log":          c.Log.Level == "debug" && c.Log.Format == "json",
	} {
		if !ok {
			t.Errorf("%s did not arrive: %+v", what, c)
		}
	}
}

func TestAFaultShowsPlaceLineCaretAndMend(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"misspelt key", "lisen = []", `1:1: unknown key "lisen"; did you mean "listen"?` + "\n   1 | lisen = …\n     | ^"},
		{"misspelt key in a table", "[log]\n  levl = 'x'", `2:3: unknown key "levl"; did you mean "level"?` + "\n   2 |   levl = …\n     |   ^"},
		{"misspelt table", "[enigne.docker]\nenabled = true", `1:2: unknown key "enigne"; did you mean "engine"?`},
		{"misspelt registry key", "[registry.\"a.b\"]\nupstream = []", `2:1: unknown key "upstream"; did you mean "upstreams"?`},
		{"key in the wrong table", "level = 'debug'", `unknown key "level"; it belongs in [log]`},
		{"key of another program", "[storage]\ndir = '/x'", `1:2: unknown key "storage"; here may stand listen, shutdown_timeout,`},
		{"key in a value", "listen.x = 1", `1:1: unknown key "x"; listen is not a table`},
		{"quoted dots", `"log.level" = "debug"`, `1:1: unknown key "log.level"`},
		{"syntax", "listen = [\"127.0.0.1:305\"\nx", "2:1:"},
		{"key twice", "listen = ['127.0.0.1:1']\nlisten = ['127.0.0.1:2']", "2:1:"},
		{"string for a list", "listen = '127.0.0.1:305'", `1:10: listen: must be a list of addresses, as ["127.0.0.1:305"], not a string` + "\n   1 | listen = '127.0.0.1:305'\n     |          ^"},
		{"number in a list", "listen = ['127.0.0.1:305',\n\t5]", "2:2: listen: must be a list of addresses, as [\"127.0.0.1:305\"], not a whole number\n   2 | \t5]\n     | \t^"},
		{"list in a list", "listen = [['127.0.0.1:305']]", "not a list"},
		{"string for a boolean", "[engine.docker]\nenabled = 'yes'", `2:11: engine.docker.enabled: must be true or false, not a string`},
		{"number for a duration", "shutdown_timeout = 30", `must be a duration in quotes, as "30s" or "2m", not a whole number`},
		{"duration without a unit", "shutdown_timeout = '30'", `"30" is not a duration; write a number and a unit`},
		{"negative duration", "shutdown_timeout = '-1s'", "out of range"},
		{"deadline of nothing", "[registry.'a.b']\ndial_timeout = '0s'", "must be more than 0s"},
		{"value for a table", "log = 'debug'", "log is a string and has to be a table: write [log]"},
		{"list of tables", "[[registry]]\nname = 'a.b'", `registry is a list of tables and has to be a table: write [registry."docker.io"]`},
		{"unquoted name", "[registry.docker.io]\nhosts = ['x.y']", `1:2: a registry's name has to be in quotes: write [registry."docker.io"]`},
		{"unquoted long name", "[registry.registry.k8s.io]", `write [registry."registry.k8s.io"]`},
		{"unquoted dotted key", "registry.quay.io.hosts = ['x.y']", `write [registry."quay.io"]`},
		{"name without a dot", "[registry.docker]", `"docker" is not a registry's name`},
		{"name that is a URL", "[registry.'https://ghcr.io']", "is a URL"},
		{"name with a path", "[registry.'ghcr.io/o']", "has a path"},
		{"name in capitals", "[registry.'GHCR.io']", `write "ghcr.io"`},
		{"name of Hub's host", "[registry.'registry-1.docker.io']", `called "docker.io"`},
		{"upstream without a scheme", "[registry.'a.b']\nupstreams = ['a.b:5000']", `2:14: registry."a.b".upstreams: "a.b:5000" has no scheme; write "https://a.b:5000"`},
		{"upstream of another scheme", "[registry.'a.b']\nupstreams = ['ftp://a.b']", "not an http or https URL"},
		{"upstream without a host", "[registry.'a.b']\nupstreams = ['https:///x']", "has no host"},
		{"upstream's port", "[registry.'a.b']\nupstreams = ['https://a.b:70000']", "has no host, or one that cannot be"},
		{"upstream's query", "[registry.'a.b']\nupstreams = ['https://a.b/?sig=x']", `"https://a.b/?…" has a query`},
		{"upstream's fragment", "[registry.'a.b']\nupstreams = ['https://a.b/#x']", "has a fragment"},
		{"no upstream", "[registry.'a.b']\nupstreams = []", `names no upstream; leave the key out for "https://a.b"`},
		{"upstream twice", "[registry.'a.b']\nupstreams = ['https://a.b', 'https://a.b']", "is there twice"},
		{"realm with a path", "[registry.'a.b']\nrealms = ['https://a.b/token']", `write "https://a.b"`},
		{"any with upstreams", "[registry.'*']\nupstreams = ['https://a.b']", `2:1: registry."*".upstreams: "*" stands for`},
		{"one host, two registries", "[registry.'a.b']\nhosts = ['m.lan']\n[registry.'c.d']\nhosts = ['n.lan', 'm.lan']", `4:19: registry."c.d".hosts: "m.lan" already means a.b`},
		{"host with a port", "[registry.'a.b']\nhosts = ['m.lan:305']", `write "m.lan"`},
		{"host that is us", "[registry.'a.b']\nhosts = ['localhost']", "means sidemirror itself"},
		{"certificate without key", "[registry.'a.b']\ncert = '/x'", "needs its key"},
		{"key without certificate", "[registry.'a.b']\nkey = '/x'", "needs its certificate"},
		{"relative path", "[credentials]\nfiles = ['config.json']", "relative path"},
		{"listen without an address", "listen = [':305']", `write "127.0.0.1:305" for this host only`},
		{"listen without a port", "listen = ['::1']", `write "[::1]:305"`},
		{"listen on a name", "listen = ['localhost:305']", `write "127.0.0.1:305", "[::1]:305" or both`},
		{"listen on no port", "listen = ['127.0.0.1:0']", "port 0"},
		{"listen nowhere", "listen = []", "names no address"},
		{"listen twice", "listen = ['127.0.0.1:1', '127.0.0.1:1']", "is there twice"},
		{"circle", "listen = ['127.0.0.1:5000']\n[registry.'a.b']\nupstreams = ['http://localhost:5000']", "requests would go round in a circle"},
		{"circle through all addresses", "listen = ['0.0.0.0:443']\n[registry.'a.b']\nupstreams = ['https://127.0.0.1']", "requests would go round in a circle"},
		{"size without a unit", "[cache]\nmax_size = '20'", `2:12: cache.max_size: "20" has no unit; write "20GiB"`},
		{"size with half a unit", "[cache]\nmax_size = '20g'", `"20g" has no unit that is known; write "20GiB" or "20GB"`},
		{"size as a number", "[cache]\nmax_size = 20", `must be a size in quotes, as "20GiB", not a whole number`},
		{"no size", "[cache]\nmax_size = '0B'", `to keep nothing write dir = ""`},
		{"size beyond all disks", "[cache]\nmax_size = '20000000TiB'", "out of range"},
		{"negative size", "[cache]\nmax_size = '-1GiB'", "is not a size"},
		{"whole disk free", "[cache]\nmin_free = '100%'", "write 0% to 99%"},
		{"free without a unit", "[cache]\nmin_free = '10'", `2:12: cache.min_free: "10" has no unit`},
		{"relative cache", "[cache]\ndir = 'cache'", "relative path"},
		{"age in days", "[cache]\nmax_stale = '7d'", `"7d" is not a duration; write a number and a unit, as "30m" or "168h"`},
		{"negative age", "[cache]\ntag_ttl = '-1s'", "out of range"},
		{"no time to ask", "[cache]\nfreshness_timeout = '0s'", "must be more than 0s"},
		{"level", "[log]\nlevel = 'verbose'", `"verbose" is not one of "error", "warn", "info", "debug", "trace"`},
		{"user id", "[trust]\nuids = [-1]", "is not a user id"},
		{"nobody's user id", "[trust]\nuids = [4294967295]", "is not a user id"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := writeConfig(t, tt.text)
			_, err := Load(path, nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got\n%v\nwant\n%s", err, tt.want)
			}
			if !strings.Contains(err.Error(), path+":") {
				t.Errorf("the file is not named:\n%v", err)
			}
			var coded interface{ ExitCode() int }
			if !errors.As(err, &coded) || coded.ExitCode() != 2 {
				t.Errorf("exit code is not 2: %v", err)
			}
		})
	}
}

func TestNoErrorShowsAPassword(t *testing.T) {
	for _, text := range []string{
		"[registry.'a.b']\nupstreams = ['https://user:hunter2@a.b']",
		"[registry.'a.b']\nupstreams = ['https://user:hunter2/x@a.b']",
		"[registry.'a.b']\nupstreams = ['ftp://hunter2@a.b']",
		"[registry.'a.b']\nupstreams = ['https://user:hunter2@a.b', 5]",
		"[registry.'a.b']\nrealms = ['https://user:hunter2@a.b']",
		"[registry.'a.b']\nupstreams = [\"https://user:hun\\qter2hunter2@a.b\"]",
		"[registry.'a.b']\npassword = 'hunter2'",
		"password = hunter2",
		"[registry.'https://user:hunter2@a.b']\n",
		"[registry.'a.b']\nhosts = ['https://user:hunter2@a.b']",
	} {
		_, err := Load(writeConfig(t, text), nil)
		if err == nil || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%q gave\n%v", text, err)
		}
	}
	_, err := Load(writeConfig(t, ""), []string{"SIDEMIRROR_REGISTRY_DOCKER_IO_UPSTREAMS=https://user:hunter2@a.b", "SIDEMIRROR_PASSWORD=hunter2"})
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "SIDEMIRROR_PASSWORD: unknown variable") {
		t.Errorf("the environment gave\n%v", err)
	}
}

func TestAFileThatWasNamedMustBeThere(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no.toml")
	for _, load := range []func() (*Config, error){
		func() (*Config, error) { return Load(missing, nil) },
		func() (*Config, error) { return Load("", []string{"SIDEMIRROR_CONFIG=" + missing}) },
	} {
		_, err := load()
		var coded interface{ ExitCode() int }
		if !errors.As(err, &coded) || coded.ExitCode() != 2 || !strings.Contains(err.Error(), missing) {
			t.Errorf("got %v", err)
		}
	}
}

func TestWhatShowPrintsLoadsAsTheSame(t *testing.T) {
	first := mustLoad(t, everything, "SIDEMIRROR_LOG_LEVEL=warn")
	var shown bytes.Buffer
	if err := first.WriteTOML(&shown); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level = \"warn\"  # SIDEMIRROR_LOG_LEVEL\n", first.File + ":2\n", "enabled = true  # default\n"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("no %q in\n%s", want, shown.String())
		}
	}
	second := mustLoad(t, shown.String())
	for i := range keys {
		if a, b := plain(keys[i].field(first)), plain(keys[i].field(second)); !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %v came back as %v", keys[i].name, a, b)
		}
	}
	for i := range first.Registries {
		for _, k := range registryKeys {
			if a, b := plain(k.field(&first.Registries[i])), plain(k.field(&second.Registries[i])); !reflect.DeepEqual(a, b) {
				t.Errorf("%s %s: %v came back as %v", first.Registries[i].Name, k.name, a, b)
			}
		}
	}
	var js bytes.Buffer
	var doc map[string]any
	if err := first.WriteJSON(&js); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(js.Bytes(), &doc); err != nil || doc["log"].(map[string]any)["level"].(map[string]any)["value"] != "warn" {
		t.Errorf("%v in %s", err, js.String())
	}
}
