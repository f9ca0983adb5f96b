package visitors

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sidemirror/sidemirror/test/network"
	"github.com/sidemirror/sidemirror/test/process"
)

const behindProxy = "tls = \"off\"\nlisten = [\"127.0.0.1:8305\"]\ntrusted_proxies = [\"127.0.0.1\"]\nallow = [\"172.30.9.3\"]\n"

// proxies are reverse proxies, as docs/site.md has them.
var proxies = map[string]func(r *rig, dir string) *exec.Cmd{
	"nginx": func(r *rig, dir string) *exec.Cmd {
		temp := ""
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			temp += fmt.Sprintf("%s_temp_path %s;\n", kind, filepath.Join(dir, kind))
		}
		file := r.write(dir, "nginx.conf", fmt.Sprintf(`daemon off;
user root;
pid %[1]s/pid;
error_log stderr;
events {}
http {
  access_log off;
  %[2]s
  server {
    listen %[3]s:443 ssl;
    ssl_certificate %[4]s;
    ssl_certificate_key %[5]s;
    location / {
      proxy_pass http://127.0.0.1:8305;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
`, dir, temp, gateway, r.ca, r.key))
		return exec.Command(process.Path(r.t, "nginx"), "-e", "stderr", "-c", file)
	},
	"caddy": func(r *rig, dir string) *exec.Cmd {
		file := r.write(dir, "Caddyfile", fmt.Sprintf("{\n admin off\n auto_https disable_redirects\n}\n%s {\n bind %s\n tls %s %s\n reverse_proxy 127.0.0.1:8305\n}\n", siteName, gateway, r.ca, r.key))
		cmd := exec.Command(process.Path(r.t, "caddy"), "run", "--adapter", "caddyfile", "--config", file)
		cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
		return cmd
	},
}

func (r *rig) write(dir, name, text string) string {
	r.t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return file
}

func TestClientsOfRealReverseProxiesCannotForgeTheirAddress(t *testing.T) {
	for name, command := range proxies {
		t.Run(name, func(t *testing.T) {
			r := start(t, behindProxy)
			process.Start(t, name, command(r, t.TempDir()), func(string) error {
				c, err := net.Dial("tcp", gateway+":443")
				if err == nil {
					err = c.Close()
				}
				return err
			})
			allowed := r.bridge.NewGuest("172.30.9.3")
			forgeries := [][]string{
				nil, {"X-Forwarded-For", "172.30.9.3"}, {"X-Forwarded-For", "127.0.0.1"}, {"X-Forwarded-For", "172.30.9.3, 127.0.0.1"},
				{"Forwarded", "for=172.30.9.3"}, {"Forwarded", `for="172.30.9.3:80";by=127.0.0.1`}, {"X-Real-IP", "172.30.9.3"},
				{"X-Forwarded-For", "172.30.9.3", "Forwarded", "for=172.30.9.3"}, {"X-Forwarded-For", "172.30.9.3,"}, {"X-Forwarded-For", ""},
				{"X_Forwarded_For", "172.30.9.3"}, {"x-forwarded-for", "172.30.9.3", "X-Forwarded-For", "172.30.9.3"},
			}
			ask := func(g *network.Guest, h []string) int { return r.ask(g, http.MethodGet, appManifest, h...).Status }
			for _, h := range forgeries {
				if got := ask(r.guest, h); got != http.StatusForbidden {
					t.Errorf("a host that may not ask, with %q: %d", h, got)
				}
			}
			// Only what a client writes into the header that its proxy does not write can harm it.
			for _, h := range [][]string{nil, {"X-Forwarded-For", "198.51.100.1"}, {"X-Real-IP", "198.51.100.1"}} {
				if got := ask(allowed, h); got != http.StatusOK {
					t.Errorf("a host that may ask, with %q: %d", h, got)
				}
			}
		})
	}
}
