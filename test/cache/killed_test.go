package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	reference "github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// kills is how often a daemon is killed in the middle of a pull, if
// $SIDEMIRROR_TEST_KILLS does not say otherwise.
const kills = 40

// killing is a cache folder that daemons are killed on, one after the other.
type killing struct {
	t       *testing.T
	up      *quirky.Server
	options harness.Options
	random  *rand.Rand
	pace    time.Duration // the shortest that a pull took
	seen    map[string]time.Time
}

func newKilling(t *testing.T, registry string) *killing {
	up := quirky.New(t, quirky.Options{})
	if registry == "" {
		registry = up.Host()
	}
	seed := rand.Uint64()
	t.Logf("the seed of the instants is %d", seed)
	return &killing{
		t: t, up: up, random: rand.New(rand.NewPCG(seed, 0)), seen: map[string]time.Time{},
		options: harness.Options{
			Listen:     []string{harness.FreeAddress(t)},
			Registries: []harness.Registry{{Name: registry, Upstreams: []string{up.URL()}}},
			Cache:      filepath.Join(t.TempDir(), "cache"),
		},
	}
}

// image is the n-th, in a repository of its own.
func (k *killing) image(n int) (string, quirky.Image) {
	i := quirky.NewImage(false, fmt.Sprintf("killed-%d", n), 400<<10, 100<<10, 10)
	repository := fmt.Sprintf("team/killed-%d", n)
	k.up.Add(repository, "v1", i)
	return repository, i
}

// during starts a daemon, begins something, and kills the daemon at some instant of it.
func (k *killing) during(do func(s *harness.Sidemirror)) {
	k.t.Helper()
	s := harness.Start(k.t, k.options)
	done := make(chan struct{})
	go func() {
		defer close(done)
		do(s)
	}()
	<-time.After(time.Duration(k.random.Int64N(int64(k.pace) * 2)))
	s.Kill()
	<-done
	content(k.t, k.options.Cache, k.seen)
}

// whole starts a daemon, looks that nothing unusable is left of the one before, and pulls an image
// with it.
func (k *killing) whole(pull func(s *harness.Sidemirror) error) {
	k.t.Helper()
	s := harness.Start(k.t, k.options)
	if left, err := notPartialBlobs(k.options.Cache, s.PID()); err != nil || len(left) > 0 {
		k.t.Errorf("after the start these are left: %v, %v", left, err)
	}
	began := time.Now()
	if err := pull(s); err != nil {
		k.t.Error(err)
	}
	if took := time.Since(began); k.pace == 0 || took < k.pace {
		k.pace = took
	}
	s.Kill()
	content(k.t, k.options.Cache, k.seen)
}

func TestKilledAtAnyInstantTheCacheHoldsOnlyWhatIsWhole(t *testing.T) {
	k := newKilling(t, name)
	rounds := kills
	if s := os.Getenv("SIDEMIRROR_TEST_KILLS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatalf("SIDEMIRROR_TEST_KILLS: %v", err)
		}
	}
	pull := func(s *harness.Sidemirror, repository string, i quirky.Image) error {
		return libraryPull(t.Context(), s.Address()+"/"+name+"/"+repository+":v1", i)
	}
	first, i := k.image(0)
	k.whole(func(s *harness.Sidemirror) error { return pull(s, first, i) })
	cut := 0
	for n := 1; n <= rounds; n++ {
		repository, i := k.image(n)
		k.during(func(s *harness.Sidemirror) {
			err := pull(s, repository, i)
			if err != nil {
				cut++
			}
			if errors.Is(err, errWrong) || err != nil && strings.Contains(err.Error(), "verif") {
				t.Errorf("round %d: what ended cleanly was wrong: %v", n, err)
			}
		})
		if n%2 == 0 || n == rounds {
			k.whole(func(s *harness.Sidemirror) error { return pull(s, repository, i) })
		}
	}
	t.Logf("%d kills, of which %d cut a pull off; a pull takes %v", rounds, cut, k.pace)
	if cut < rounds/4 {
		t.Errorf("of %d kills only %d came while something was pulled: this says little", rounds, cut)
	}
	last := harness.Start(t, k.options)
	k.up.Forget()
	for n := range rounds + 1 {
		repository, i := k.image(n)
		if err := pull(last, repository, i); err != nil {
			t.Errorf("image %d afterwards: %v", n, err)
		}
	}
	content(t, k.options.Cache, nil)
}

var errWrong = errors.New("other bytes than the digest's")

// libraryPull pulls as crane does, and compares every byte.
func libraryPull(ctx context.Context, image string, want quirky.Image) error {
	transport := &http.Transport{DisableKeepAlives: true}
	ref, err := reference.ParseReference(image, reference.Insecure)
	if err != nil {
		return err
	}
	got, err := remote.Image(ref, remote.WithContext(ctx), remote.WithTransport(transport),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
	if err != nil {
		return err
	}
	raw, err := got.RawManifest()
	if err == nil && string(raw) != string(want.Bytes) {
		err = errWrong
	}
	if err != nil {
		return err
	}
	if raw, err = got.RawConfigFile(); err == nil && string(raw) != string(want.Blobs[0].Bytes) {
		err = errWrong
	}
	layers, layersErr := got.Layers()
	if err = errors.Join(err, layersErr); err != nil {
		return err
	}
	errs := make([]error, len(layers))
	harness.Together(len(layers), func(i int) {
		var body io.ReadCloser
		if body, errs[i] = layers[i].Compressed(); errs[i] != nil {
			return
		}
		defer body.Close()
		var content []byte
		if content, errs[i] = io.ReadAll(body); errs[i] == nil && string(content) != string(want.Blobs[1+i].Bytes) {
			errs[i] = errWrong
		}
	})
	return errors.Join(errs...)
}

func TestKilledDuringPullsByContainerdEveryPullSucceedsAndTheCacheIsWhole(t *testing.T) {
	engine.NeedRoot(t)
	k := newKilling(t, "")
	// Named by its address, the upstream is what containerd goes on to.
	containerd := engine.StartContainerd(t, certs(t, k.up.Host(), "http://"+k.options.Listen[0], k.up.URL()))
	named := func(repository string) string { return k.up.Host() + "/" + repository + ":v1" }
	first, _ := k.image(0)
	k.whole(func(*harness.Sidemirror) error { return containerd.Pull(t.Context(), named(first), "") })
	for n := 1; n <= kills/5; n++ {
		repository, i := k.image(n)
		k.during(func(*harness.Sidemirror) {
			if err := containerd.Pull(t.Context(), named(repository), ""); err != nil {
				t.Errorf("round %d: %v", n, err)
			}
		})
		for _, b := range i.Blobs {
			if _, err := os.Stat(filepath.Join(containerd.Content, "sha256", b.Digest.Encoded())); err != nil {
				t.Errorf("round %d: containerd says that it has pulled, and lacks a blob: %v", n, err)
			}
		}
	}
	fresh := engine.StartContainerd(t, certs(t, k.up.Host(), "http://"+k.options.Listen[0], ""))
	harness.Start(t, k.options)
	for n := range kills/5 + 1 {
		repository, _ := k.image(n)
		if err := fresh.Pull(t.Context(), named(repository), ""); err != nil {
			t.Errorf("image %d afterwards: %v", n, err)
		}
	}
	content(t, k.options.Cache, nil)
}

// certs is containerd's folder with a hosts.toml that names us for a registry, and
// after us the registry itself, unless that is empty.
func certs(t *testing.T, registry, us, itself string) string {
	t.Helper()
	folder := t.TempDir()
	toml := ""
	if itself != "" {
		toml = fmt.Sprintf("server = %q\n\n", itself)
	}
	toml += fmt.Sprintf("[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", us)
	path := filepath.Join(folder, registry, "hosts.toml")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(toml), 0o644)); err != nil {
		t.Fatal(err)
	}
	return folder
}
