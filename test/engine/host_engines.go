package engine

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sidemirror/sidemirror/test/engine/cri"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	dockerSocket     = "/run/docker.sock"

	// answerLimit bounds what is read of an engine's answer, in bytes.
	answerLimit = 8 << 20
	// pullLimit is how long an engine may take for an image of some kilobytes.
	pullLimit = 2 * time.Minute
)

// StartContainerd runs containerd as its unit does, and again where it runs already:
// the restart that systemd would do.
func (h *Host) StartContainerd(t testing.TB) {
	t.Helper()
	if h.containerd != nil {
		h.containerd.Stop()
	}
	h.containerd = h.start(t, func(output string) error {
		if !strings.Contains(output, "containerd successfully booted") {
			return errors.New("it has not booted")
		}
		return awaitSocket(h.Path(containerdSocket))
	}, "/usr/bin/containerd")
}

// StopEngines stops both engines, as if they were removed.
func (h *Host) StopEngines() {
	h.docker.Stop()
	h.containerd.Stop()
}

// ContainerdRuns reports whether containerd, once started, has not ended.
func (h *Host) ContainerdRuns() bool { return h.containerd != nil && h.containerd.Runs() }

// StartDocker runs dockerd as its unit does, on the host's containerd, and with further
// flags. A dockerd that runs already is stopped first. Only the flags that keep it away from
// this machine's network are the test's.
func (h *Host) StartDocker(t testing.TB, flags ...string) {
	t.Helper()
	if h.docker != nil {
		h.docker.Stop()
	}
	line := []string{"-H", "unix:///var/run/docker.sock", "--containerd=" + containerdSocket,
		"--iptables=false", "--ip6tables=false", "--bridge=none"}
	h.docker = h.start(t, func(string) error {
		_, err := h.DockerInfo(t.Context())
		return err
	}, "/usr/sbin/dockerd", append(line, flags...)...)
}

// DockerLog is what the running dockerd has printed.
func (h *Host) DockerLog() string { return h.docker.Output() }

// ConfigDump is what containerd itself makes of its configuration file.
func (h *Host) ConfigDump(ctx context.Context) (string, error) {
	stdout, stderr, code, err := h.Run(ctx, "/usr/bin/containerd", "config", "dump")
	if err == nil && code != 0 {
		err = fmt.Errorf("containerd config dump: exit code %d: %s", code, stderr)
	}
	return stdout, err
}

// PullCRI pulls as the kubelet does. A containerd that was just started listens before its CRI
// service is ready.
func (h *Host) PullCRI(ctx context.Context, reference, digest string) error {
	return h.PullCRIAs(ctx, reference, digest, nil)
}

// PullCRIAs is PullCRI with a pod's secret; nil is none.
func (h *Host) PullCRIAs(ctx context.Context, reference, digest string, secret *runtime.AuthConfig) error {
	return h.pullCRI(ctx, containerdSocket, reference, digest, secret)
}

// PullCRIAt is PullCRI by the containerd that listens at another socket.
func (h *Host) PullCRIAt(ctx context.Context, socket, reference, digest string) error {
	return h.pullCRI(ctx, socket, reference, digest, nil)
}

func (h *Host) pullCRI(ctx context.Context, socket, reference, digest string, secret *runtime.AuthConfig) error {
	ctx, cancel := context.WithTimeout(ctx, pullLimit)
	defer cancel()
	for {
		got, err := cri.PullWith(ctx, h.Path(socket), reference, secret)
		if err == nil {
			return holds(got, reference, digest)
		}
		if !strings.Contains(err.Error(), "server is not initialized yet") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ForgetCRI removes an image that CRI has pulled, so that the next pull fetches all of it again.
func (h *Host) ForgetCRI(ctx context.Context, reference string) error {
	return cri.Remove(ctx, h.Path(containerdSocket), reference)
}

// holds checks that an engine has what was pushed.
func holds(got []string, reference, digest string) error {
	if !slices.ContainsFunc(got, func(s string) bool { return strings.HasSuffix(s, "@"+digest) }) {
		return fmt.Errorf("pulling %s: it has %q, want %s", reference, got, digest)
	}
	return nil
}

// DockerInfo is part of what dockerd says of itself.
type DockerInfo struct {
	ServerVersion  string
	Driver         string
	DriverStatus   [][2]string
	RegistryConfig struct{ Mirrors []string }
}

// ContainerdStore reports whether containerd keeps dockerd's images.
func (i DockerInfo) ContainerdStore() bool {
	return slices.ContainsFunc(i.DriverStatus, func(pair [2]string) bool {
		return pair[0] == "driver-type" && strings.HasPrefix(pair[1], "io.containerd.snapshotter.")
	})
}

// DockerInfo asks dockerd what it has in force.
func (h *Host) DockerInfo(ctx context.Context) (info DockerInfo, err error) {
	err = h.api(ctx, http.MethodGet, "/info", func(r io.Reader) error { return json.NewDecoder(r).Decode(&info) })
	return info, err
}

// PullDocker does what `docker pull` does, over the API that the command asks for it:
// a command of one generation does not speak with the daemon of every other.
func (h *Host) PullDocker(ctx context.Context, name, tag, digest string) error {
	return h.PullDockerAs(ctx, name, tag, digest, "", "")
}

// PullDockerAs is PullDocker by a person who has logged in with `docker login`, unless user is empty.
func (h *Host) PullDockerAs(ctx context.Context, name, tag, digest, user, password string) error {
	header := http.Header{}
	if user != "" {
		login, err := json.Marshal(map[string]string{"username": user, "password": password})
		if err != nil {
			return err
		}
		header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(login))
	}
	ctx, cancel := context.WithTimeout(ctx, pullLimit)
	defer cancel()
	query := url.Values{"fromImage": {name}, "tag": {tag}}
	err := h.send(ctx, http.MethodPost, "/images/create?"+query.Encode(), header, progress)
	if err != nil {
		return fmt.Errorf("pulling %s:%s by docker: %w", name, tag, err)
	}
	var image Image
	err = h.api(ctx, http.MethodGet, "/images/"+name+":"+tag+"/json", func(r io.Reader) error { return json.NewDecoder(r).Decode(&image) })
	if err != nil {
		return fmt.Errorf("inspecting %s:%s: %w", name, tag, err)
	}
	return holds(image.RepoDigests, name, digest)
}

// ForgetDocker removes an image, so that the next pull fetches all of it again.
func (h *Host) ForgetDocker(ctx context.Context, name, tag string) error {
	ignore := func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }
	return h.api(ctx, http.MethodDelete, "/images/"+name+":"+tag+"?force=1", ignore)
}

// progress reads a pull's lines to the end. A pull that fails says so in one of them.
func progress(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var line struct{ Error string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("reading %q: %w", lines.Text(), err)
		}
		if line.Error != "" {
			return errors.New(line.Error)
		}
	}
	return lines.Err()
}

func (h *Host) api(ctx context.Context, method, target string, read func(io.Reader) error) error {
	return h.send(ctx, method, target, nil, read)
}

func (h *Host) send(ctx context.Context, method, target string, header http.Header, read func(io.Reader) error) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Path(dockerSocket))
		},
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://docker"+target, nil)
	if err != nil {
		return err
	}
	if header != nil {
		request.Header = header
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body := io.LimitReader(response.Body, answerLimit)
	if response.StatusCode/100 != 2 {
		text, err := io.ReadAll(body)
		return errors.Join(fmt.Errorf("dockerd answers %s: %s", response.Status, strings.TrimSpace(string(text))), err)
	}
	return read(body)
}
