package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The servers that are compared, by the names that the tables have.
const (
	sidemirror    = "sidemirror"
	withoutACache = "sidemirror without a cache"
	nginxStatic   = "nginx static"
	nginxCache    = "nginx proxy_cache"
	registry      = "distribution"
	registryPull  = "distribution pull-through"
)

const (
	// repository is the upstream's only one, and namespace is the upstream's name as a registry.
	repository = "bench/app"
	namespace  = "bench.test"
)

// server is a running server.
type server struct {
	*process
	address string
	dir     string // for what it writes
	scheme  string // "http" if empty
	ca      string // the authority of an https server
	query   string // after every path
}

func (s *server) blob(b *blob) string { return s.path("blobs", b.digest) }

func (s *server) path(kind, name string) string {
	return "/v2/" + repository + "/" + kind + "/" + name + s.query
}

// fetch gets what is at path once, and checks its digest: figures of wrong bytes would mean nothing.
func (s *server) fetch(ctx context.Context, path string, want *blob) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.address+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", manifestType+", */*")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	defer resp.Body.Close()
	got, err := digestOf(resp.Body)
	if err != nil {
		return fmt.Errorf("%s: read %s: %w", s.name, path, err)
	}
	if resp.StatusCode != http.StatusOK || got != want.digest {
		return fmt.Errorf("%s: GET %s: %s, and a body with the digest %s", s.name, path, resp.Status, got)
	}
	return nil
}

// start starts a server of the kind called name. Those that store what they fetch get it from
// upstream; the others, for which it is nil, have images from the beginning.
func (b *bench) start(ctx context.Context, name string, upstream *upstream, images ...*image) (*server, error) {
	dir, err := os.MkdirTemp(b.dir, strings.ReplaceAll(name, " ", "-")+"-")
	if err != nil {
		return nil, err
	}
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &server{address: address, dir: dir}
	var env, argv []string
	switch name {
	case sidemirror, withoutACache:
		env = append([]string{"HOME=" + dir, "AWS_ACCESS_KEY_ID=bench", "AWS_SECRET_ACCESS_KEY=bench"}, b.environment...)
		store := filepath.Join(dir, "cache")
		if name == withoutACache {
			store = ""
		}
		argv, err = b.sidemirrorWith(store, dir, address, upstream)
		s.query = "?ns=" + namespace
	case nginxStatic:
		argv, err = b.nginx(dir, fmt.Sprintf(nginxStaticServer, address, dir))
		if err == nil {
			err = writeTree(dir, images)
		}
	case nginxCache:
		argv, err = b.nginx(dir, fmt.Sprintf(nginxCacheServer, dir, upstream.address, address))
	case registry, registryPull:
		env = []string{"OTEL_TRACES_EXPORTER=none"}
		argv, err = b.distribution(dir, address, upstream)
	}
	if err != nil {
		return nil, err
	}
	if s.process, err = spawn(name, b.logOf(name), env, argv...); err != nil {
		return nil, err
	}
	if err := s.ready(ctx, address, "/v2/"); err != nil {
		s.stop()
		return nil, err
	}
	if name == registry {
		if err := s.push(ctx, images); err != nil {
			s.stop()
			return nil, err
		}
	}
	return s, nil
}

// logOf returns the file that a server's output goes to.
func (b *bench) logOf(name string) string {
	if b.logs == "" {
		return os.DevNull
	}
	return filepath.Join(b.logs, strings.ReplaceAll(name, " ", "-")+".log")
}

// minFree is what sidemirror leaves free of the disk, in bytes. The other servers leave nothing free,
// and a cache that has no room stores nothing.
const minFree = 1 << 30

// room is what the servers of one run may write, in bytes.
const room = 10 << 30

// checkRoom returns an error if the disk of the temporary folder has too little room: without it the
// figures would be those of a proxy that stores nothing.
func (b *bench) checkRoom() error {
	var st unix.Statfs_t
	if err := unix.Statfs(b.dir, &st); err != nil {
		return fmt.Errorf("looking for room in %s: %w", b.dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < minFree+room {
		return fmt.Errorf("the disk of %s has %s free, and a run needs %s: name another folder with -dir", b.dir, mebibytes(free), mebibytes(minFree+room))
	}
	return nil
}

// sidemirror writes its configuration below dir. Its cache is there too.
func (b *bench) sidemirror(dir, address string, upstream *upstream) ([]string, error) {
	return b.sidemirrorWith(filepath.Join(dir, "cache"), dir, address, upstream)
}

// sidemirrorWith is sidemirror with another folder for the cache, or with none if store is empty.
func (b *bench) sidemirrorWith(store, dir, address string, upstream *upstream) ([]string, error) {
	ca := ""
	if upstream.ca != "" {
		ca = fmt.Sprintf("ca = %q\n", upstream.ca)
	}
	shared := ""
	if upstream.store != "" {
		shared = fmt.Sprintf("[cache.shared]\nurl = %q\n", upstream.store)
	}
	var upstreams strings.Builder
	for _, u := range append(slices.Clone(upstream.mirrors), upstream.scheme+"://"+upstream.address) {
		fmt.Fprintf(&upstreams, "%q, ", u)
	}
	config := fmt.Sprintf(`listen = [%q]
shutdown_timeout = "5s"
[cache]
dir = %q
min_free = "%dB"
%s[credentials]
store = %q
[trust]
uids = [%d]
[registry.%q]
upstreams = [%s]
%s[log]
level = "info"
`, address, store, minFree, shared, filepath.Join(dir, "store.json"), os.Getuid(), namespace, &upstreams, ca)
	path := filepath.Join(dir, "config.toml")
	return []string{b.binary, "serve", "--config", path}, os.WriteFile(path, []byte(config), 0o600)
}

// nginxConf has sendfile and tcp_nopush on and an access log in the ordinary format, as Debian's
// has. A connection may have more requests than by default, or wrk would connect anew now and then.
const nginxConf = `daemon off;
user %s;
worker_processes auto;
worker_rlimit_nofile 8192;
pid %s/nginx.pid;
error_log stderr;
events { worker_connections 2048; }
http {
	sendfile on;
	tcp_nopush on;
	keepalive_requests 1000000;
	access_log %s;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	%[4]s
}
`

const nginxStaticServer = `server { listen %s; root %s/root; }`

// nginx stores what has a digest, and asks the upstream for a tag each time, as sidemirror and
// distribution do.
const nginxCacheServer = `proxy_cache_path %s/cache levels=1:2 keys_zone=content:16m max_size=20g inactive=1d use_temp_path=off;
	upstream registry { server %s; keepalive 16; }
	server {
		listen %s;
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		location / { proxy_pass http://registry; }
		location ~ sha256: {
			proxy_pass http://registry;
			proxy_cache content;
			proxy_cache_valid 200 1d;
			proxy_cache_lock on;
		}
	}`

func (b *bench) nginx(dir, server string) ([]string, error) {
	path := filepath.Join(dir, "nginx.conf")
	conf := fmt.Sprintf(nginxConf, b.user, dir, b.logOf("nginx access"), server)
	return []string{b.tools.nginx, "-e", "stderr", "-p", dir, "-c", path}, os.WriteFile(path, []byte(conf), 0o600)
}

// writeTree puts images below dir/root, by the paths that a registry has for them.
func writeTree(dir string, images []*image) error {
	for _, i := range images {
		base := filepath.Join(dir, "root/v2", repository)
		if err := writeBlob(filepath.Join(base, "manifests"), i.manifest); err != nil {
			return err
		}
		for _, b := range append([]*blob{i.config}, i.layers...) {
			if err := writeBlob(filepath.Join(base, "blobs"), b); err != nil {
				return err
			}
		}
	}
	return nil
}

func writeBlob(dir string, b *blob) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, b.digest))
	if err != nil {
		return err
	}
	_, err = io.Copy(f, b.reader())
	return errors.Join(err, f.Close())
}

// distributionConf is the configuration that distribution ships (config-example.yml), without the
// health check of its folder, which no client asks for here.
const distributionConf = `version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: %s/data
http:
  addr: %s
  headers:
    X-Content-Type-Options: [nosniff]
`

// distribution writes its configuration. An upstream makes it a pull-through cache.
func (b *bench) distribution(dir, address string, upstream *upstream) ([]string, error) {
	config := fmt.Sprintf(distributionConf, dir, address)
	if upstream != nil {
		config += "proxy:\n  remoteurl: http://" + upstream.address + "\n"
	}
	path := filepath.Join(dir, "config.yml")
	return []string{b.tools.registry, "serve", path}, os.WriteFile(path, []byte(config), 0o600)
}

// freeAddress returns a free host:port on loopback.
func freeAddress() (string, error) {
	//nolint:noctx // listening on loopback does not block
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
