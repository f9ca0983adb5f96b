package hostconfig

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/socket"
	"github.com/sidemirror/sidemirror/hostconfig/splice"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// resolver pulls as an engine that reads hosts.toml files: from the server that the one
// for reference's registry names.
func resolver(h *Host) func(context.Context, ask, string) error {
	server := regexp.MustCompile(`(?m)^server = "(http://127\.0\.0\.1:\d+)"$`)
	return func(ctx context.Context, q ask, reference string) error {
		registry, image, _ := strings.Cut(reference, "/")
		repository, tag, _ := strings.Cut(image, ":")
		text, err := os.ReadFile(h.path(path.Join(q.folder, registry, "hosts.toml")))
		if err != nil {
			return err
		}
		if !strings.Contains(string(text), `[host."`) {
			return errors.New("no host")
		}
		found := server.FindSubmatch(text)
		if found == nil {
			return fmt.Errorf("no server in %s", text)
		}
		url := string(found[1]) + "/v2/" + repository + "/manifests/" + tag + "?ns=" + registry
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, url, nil)
		if err != nil {
			return err
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		return errors.New(resp.Status)
	}
}

// warnings are those of a result, one a line, with their hints.
func warnings(r Result) string {
	var lines []string
	for _, p := range r.Warnings {
		lines = append(lines, problem.Format("", p))
	}
	return strings.Join(lines, "\n")
}

// askedHost is a Docker on the containerd store and a containerd that runs, with the fake that
// answers for both.
func askedHost(t *testing.T) (*Host, *fakeRunning) {
	h := host(t, map[string]string{
		containerdConfig: "version = 2\n" + criV2 + "\nconfig_path = \"/srv/hosts\"\n", "/etc/docker/": "",
	})
	h.Probe = true
	h.Versions[engine.Containerd] = "1.7.34"
	fake := running(h)
	fake.store, fake.version, fake.containerd = "containerd", "28.5.2", []string{"containerd"}
	return h, fake
}

func TestEnginesAreAskedWhetherTheyReadWhatWasWritten(t *testing.T) {
	h, fake := askedHost(t)
	before := h.snapshot(t)
	fake.pull = resolver(h)
	result, err := h.try(t, desired("docker.io"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"docker reads hosts.toml files in /etc/docker/certs.d", "containerd reads hosts.toml files in /srv/hosts"}; !slices.Equal(result.Probed, want) || len(result.Warnings) != 0 {
		t.Errorf("asked %q, warned %q", result.Probed, result.Warnings)
	}
	contains(t, h.get(t, journal.Folder+"/journal.json"), "/srv/hosts/docker.io")
	for name := range h.snapshot(t) {
		if strings.Contains(name, probeDomain) {
			t.Errorf("%s is left", name)
		}
	}
	// Nothing was changed, so there is nothing to ask.
	if result := h.apply(t, desired("docker.io")); len(result.Probed)+len(result.Warnings) != 0 {
		t.Errorf("%+v", result)
	}
	if result := h.revert(t); len(result.Probed)+len(result.Warnings) != 0 {
		t.Errorf("%+v", result)
	}
	sameTree(t, before, h.snapshot(t))
}

func TestAnEngineThatDoesNotComeIsWarnedOf(t *testing.T) {
	for name, test := range map[string]struct {
		pull func(context.Context, ask, string) error
		says string
	}{
		"goes elsewhere": {func(context.Context, ask, string) error { return errors.New("no such host") }, "/srv/hosts: containerd was asked to pull a probe image and did not read the hosts.toml file here; it reported: no such host\nhint: see config_path"},
		"has it":         {func(context.Context, ask, string) error { return nil }, "it has that image"},
		"not from here":  {func(context.Context, ask, string) error { return fmt.Errorf("%w: hidden", socket.ErrUnreachable) }, ""},
		"never answers": {func(ctx context.Context, _ ask, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}, "it reported: nothing within 50ms"},
		"guesses": {func(ctx context.Context, q ask, reference string) error {
			return resolver(nil)(ctx, q, "x") // it asks for another image
		}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			h, fake := askedHost(t)
			if fake.pull = test.pull; name == "guesses" {
				fake.pull = func(ctx context.Context, q ask, reference string) error {
					registry, _, _ := strings.Cut(reference, "/")
					return resolver(h)(ctx, q, registry+"/another:probe")
				}
				test.says = "404 Not Found"
			}
			if name == "never answers" {
				h.patience = 50 * time.Millisecond
			}
			before := h.snapshot(t)
			result, err := h.try(t, containerdOnly("r.example"))
			if err != nil || len(result.Probed) != 0 || len(result.Warnings) > 1 || (len(result.Warnings) == 1) != (test.says != "") {
				t.Errorf("%+v, %v", result, err)
			}
			contains(t, warnings(result), test.says)
			h.revert(t)
			sameTree(t, before, h.snapshot(t))
		})
	}
}

func TestNobodyIsAskedWhatIsKnown(t *testing.T) {
	asked := func(t *testing.T, prepare func(h *Host, fake *fakeRunning), want engine.Desired) (engines []string) {
		h, fake := askedHost(t)
		fake.pull = func(_ context.Context, q ask, _ string) error {
			engines = append(engines, q.engine)
			return socket.ErrUnreachable
		}
		prepare(h, fake)
		if _, err := h.try(t, want); err != nil {
			t.Fatal(err)
		}
		return engines
	}
	set := func(text string) func(*Host, *fakeRunning) {
		return func(h *Host, _ *fakeRunning) { h.put(t, containerdConfig, text) }
	}
	for name, test := range map[string]struct {
		prepare func(h *Host, fake *fakeRunning)
		want    engine.Desired
		engines []string
	}{
		"both":               {func(*Host, *fakeRunning) {}, desired("docker.io"), []string{engine.Docker, engine.Containerd}},
		"Docker 27":          {func(h *Host, d *fakeRunning) { d.version, h.Versions[engine.Docker] = "27.5.1", "27.5.1" }, desired("docker.io"), []string{engine.Containerd}},
		"graph driver":       {func(_ *Host, d *fakeRunning) { d.store = "overlay2" }, desired("docker.io"), []string{engine.Containerd}},
		"CRI off":            {set("disabled_plugins = [\"cri\"]\n"), desired("docker.io"), []string{engine.Docker}},
		"empty config_path":  {set("version = 2\n"), containerdOnly("r.example"), nil},
		"restarted":          {set("version = 2\n"), restarting(), []string{engine.Containerd}},
		"containerd stopped": {func(_ *Host, d *fakeRunning) { d.containerd = nil }, containerdOnly("r.example"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := asked(t, test.prepare, test.want); !slices.Equal(got, test.engines) {
				t.Errorf("asked %q", got)
			}
		})
	}
	t.Run("unless that is wanted", func(t *testing.T) {
		if got := asked(t, func(h *Host, _ *fakeRunning) { h.Probe = false }, desired("docker.io")); got != nil {
			t.Errorf("asked %q", got)
		}
	})
}

func TestAProbeWhoseJournalIsLostIsTakenAwayByItsMark(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/certs.d/": ""})
	before := h.snapshot(t)
	folder := containerdHosts + "/probe-x" + probeDomain
	if err := os.Mkdir(h.path(folder), 0o755); err != nil {
		t.Fatal(err)
	}
	h.put(t, folder+"/hosts.toml", string(splice.Hosts{URL: "http://127.0.0.1:1", Server: "http://127.0.0.1:1"}.File()))
	h.revert(t)
	h.missing(t, folder+"/hosts.toml")
	if err := os.Remove(h.path(folder)); err != nil { // without the journal nothing tells who made it
		t.Fatal(err)
	}
	sameTree(t, before, h.snapshot(t))
}

// What fails on the way leaves nothing that the next run does not take away.
func TestAFaultWhileAskingLeavesNothing(t *testing.T) {
	for step, failed := 1, true; failed; step++ {
		h, fake := askedHost(t)
		fake.pull = resolver(h)
		before := h.snapshot(t)
		n := 0
		failed = false
		h.step = func(_, name string) error {
			if !strings.Contains(name, probeDomain) {
				return nil
			}
			if n++; n == step {
				failed = true
				return unix.ENOSPC
			}
			return nil
		}
		result, err := h.try(t, containerdOnly("r.example"))
		if len(result.Written) != 1 || failed && err == nil && len(result.Probed) != 0 {
			t.Errorf("step %d: %+v, %v", step, result, err)
		}
		h.step = nil
		h.apply(t, containerdOnly("r.example"))
		for name := range h.snapshot(t) {
			if strings.Contains(name, probeDomain) {
				t.Errorf("step %d: %s is left", step, name)
			}
		}
		h.revert(t)
		sameTree(t, before, h.snapshot(t))
	}
}
