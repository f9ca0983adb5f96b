package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
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

func TestDefaultsNeedNoFile(t *testing.T) {
	c := Default()
	var names []string
	for _, r := range c.Registries {
		names = append(names, fmt.Sprint(r.Name, r.Upstreams))
	}
	want := []string{"docker.io[https://registry-1.docker.io]", "ghcr.io[https://ghcr.io]", "quay.io[https://quay.io]", "registry.k8s.io[https://registry.k8s.io]", "*[]"}
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
upstreams = ["https://registry.corp.example:5000/v2/mirror", "http://10.0.0.1:5000"]
ca = "/etc/ssl/corp.pem"
cert = "/etc/ssl/me.pem"
key = "/etc/ssl/me.key"
realms = ["https://sso.corp.example"]
dial_timeout = "2s"
header_timeout = "500ms"
parallel = 3

[registry."*"]

[guests]
networks = ["docker0", "br-*"]
port = 5305
logins = ["docker.io"]

[site]
listen = ["0.0.0.0:443", "[::]:443"]
http_listen = ["0.0.0.0:80"]
cert = "/etc/ssl/site.pem"
key = "/etc/ssl/site.key"
acme_directory = "https://ca.example/dir"
acme_ca = "/etc/ssl/ca.pem"
acme_email = "admin@example.com"
acme_accept_terms = true
allow = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]
users = "/etc/sidemirror/users"
trusted_proxies = ["127.0.0.1"]
logins = ["docker.io"]
max_connections = 7
max_requests = 0
max_fills = 3
rate = "20MiB"

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
prefetch = false

[cache.shared]
url = "s3://layers/sidemirror/?endpoint=https://s3.corp.example:3900&region=garage"
private = true
credentials = "/srv/keys"
ca = "/etc/ssl/s3.pem"
upload = false
queue = "1GiB"

[trust]
uids = [0, 1_000, 0x3e9]
units = ["default", "ci-*.service", "/a/b"]

[engine]
docker = { enabled = false }
containerd.restart = true

[log]
level = "debug"
format = "json"
`

func TestRegistriesThatAreNotNamedCanBeTurnedOff(t *testing.T) {
	for text, want := range map[string]bool{
		"":                                    true,
		"[registry.'*']\n":                    true,
		"[registry.'*']\ndial_timeout='2s'\n": true,
		"[registry.'*']\nenabled = true\n":    true,
		"[registry.'*']\nenabled = false\n":   false,
	} {
		c := mustLoad(t, text)
		if got := c.Registry(Wildcard) != nil; got != want {
			t.Errorf("%q: served: %t", text, got)
		}
		var shown strings.Builder
		if err := c.WriteTOML(&shown); err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf("\n[registry.\"*\"]\nenabled = %t  # ", want); !strings.Contains(shown.String(), line) {
			t.Errorf("%q is shown as\n%s", text, shown.String())
		}
		again, err := Load(writeConfig(t, shown.String()), nil)
		if err != nil || (again.Registry(Wildcard) != nil) != want {
			t.Errorf("what is shown is read as another configuration: %v", err)
		}
	}
}

func TestARegistryIsReachedAsTheEnginesDoUnlessTheConfigurationSaysHow(t *testing.T) {
	for text, explicit := range map[string]bool{
		"": false, "client_auth = 'relay'": false, "dial_timeout = '2s'": false,
		"upstreams = ['https://r.example']": true, "ca = '/ca.pem'": true, "cert = '/a'\nkey = '/b'": true,
	} {
		if got := mustLoad(t, "[registry.'r.example']\n"+text).Registry("r.example").Explicit; got != explicit {
			t.Errorf("%s: %t", text, got)
		}
	}
}

func TestEveryKeyIsSet(t *testing.T) {
	c := mustLoad(t, everything)
	hub, corp := c.Registry("docker.io"), c.Registry("registry.corp.example:5000")
	for what, ok := range map[string]bool{
		"listen":       len(c.Listen) == 2 && c.Listen[1].String() == "[::1]:5116",
		"shutdown":     c.ShutdownTimeout == 90*time.Second,
		"hub's own":    hub.Hosts[0] == "docker.example.lan" && hub.ClientAuth == "relay",
		"hub's kept":   len(hub.Upstreams) == 1 && hub.Upstreams[0].URL.Host == "registry-1.docker.io" && hub.DialTimeout == 5*time.Second,
		"upstreams":    len(corp.Upstreams) == 2 && corp.Upstreams[0].Prefix == "mirror" && corp.Upstreams[1].URL.Scheme == "http",
		"certificates": corp.CA == "/etc/ssl/corp.pem" && corp.Cert == "/etc/ssl/me.pem" && corp.Key == "/etc/ssl/me.key",
		"realms":       corp.Realms[0] == "https://sso.corp.example",
		"timeouts":     corp.DialTimeout == 2*time.Second && corp.HeaderTimeout == 500*time.Millisecond,
		"parallel":     corp.Parallel == 3 && hub.Parallel == 8,
		"shared":       c.Cache.Shared.Private && c.Cache.Shared.Credentials == "/srv/keys" && c.Cache.Shared.CA == "/etc/ssl/s3.pem" && !c.Cache.Shared.Upload && c.Cache.Shared.Queue == 1<<30,
		"site": reflect.DeepEqual(c.Site, Site{
			Listen:     []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:443"), netip.MustParseAddrPort("[::]:443")},
			HTTPListen: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:80")},
			TLS:        "files", Cert: "/etc/ssl/site.pem", Key: "/etc/ssl/site.key",
			ACMEDirectory: "https://ca.example/dir", ACMECA: "/etc/ssl/ca.pem", ACMEEmail: "admin@example.com", ACMEAcceptTerms: true,
			Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("fd00::/8")},
			Users: "/etc/sidemirror/users", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, Logins: []string{"docker.io"},
			MaxConnections: 7, MaxRequests: 0, MaxFills: 3, Rate: 20 << 20,
		}),
		"prefetch":    !c.Cache.Prefetch,
		"any":         c.Registry("*") != nil && c.Registry("*").Upstreams == nil,
		"credentials": c.Credentials.Files[0] == "/root/.docker/config.json" && c.Credentials.Store == "/srv/credentials.json",
		"cache":       c.Cache.Dir == "/srv/cache" && c.Cache.MaxSize == 3<<39 && c.Cache.MinFree == Free{Percent: 2.5},
		"freshness":   c.Cache.MaxStale == 720*time.Hour && c.Cache.TagTTL == 90*time.Second && c.Cache.FreshnessTimeout == 2*time.Second,
		"units":       reflect.DeepEqual(c.Trust.Units, []string{"default", "ci-*.service", "/a/b"}),
		"uids":        reflect.DeepEqual(c.Trust.UIDs, []uint32{0, 1000, 1001}),
		"engines":     !c.Engine.Docker.Enabled && c.Engine.Containerd.Enabled && c.Engine.Containerd.Restart,
		"log":         c.Log.Level == "debug" && c.Log.Format == "json",
	} {
		if !ok {
			t.Errorf("%s is not set: %+v", what, c)
		}
	}
}

func TestNamedFileMustExist(t *testing.T) {
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

func TestShownConfigurationIsTheSameWhenLoaded(t *testing.T) {
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

func TestParallelIsANumberFromOneToSixteen(t *testing.T) {
	for text, ok := range map[string]bool{
		"1": true, "16": true, "0x10": true, "0": false, "17": false, "-1": false, "99999999999999999999": false,
		"\"8\"": false, "1.5": false, "true": false, "[8]": false,
	} {
		for what, err := range map[string]error{
			"the file":     second(Load(writeConfig(t, "[registry.\"ghcr.io\"]\nparallel = "+text+"\n"), nil)),
			"the variable": second(Load("", []string{"SIDEMIRROR_REGISTRY_GHCR_IO_PARALLEL=" + text})),
		} {
			if (err == nil) != ok {
				t.Errorf("%s in %s: %v", text, what, err)
			}
		}
	}
	c, err := Load("", []string{"SIDEMIRROR_REGISTRY_GHCR_IO_PARALLEL=2", "SIDEMIRROR_CACHE_PREFETCH=false"})
	if err != nil || c.Registry("ghcr.io").Parallel != 2 || c.Cache.Prefetch {
		t.Fatalf("%+v, %v", c, err)
	}
	var shown bytes.Buffer
	if err := c.WriteTOML(&shown); err != nil {
		t.Fatal(err)
	}
	again := mustLoad(t, shown.String())
	if again.Registry("ghcr.io").Parallel != 2 || again.Registry("quay.io").Parallel != 8 || again.Cache.Prefetch {
		t.Errorf("what is shown does not mean the same:\n%s", shown.String())
	}
}

func second(_ *Config, err error) error { return err }
