package hosts_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/registry"
)

// logLimit is how long a line of a log may take to be there.
const logLimit = 2 * time.Second

// by is the way that a pull took.
type by string

const (
	direct        by = "straight to the registry"
	viaSidemirror by = "through sidemirror"
	fellBack      by = "straight to the registry, after asking sidemirror"
)

// pulled pulls a new image by pull, which gets its repository and digest, and reports which
// way that went, by what the registry and sidemirror have counted.
func (r *rig) pulled(t *testing.T, pull func(repository, digest string) error) by {
	t.Helper()
	return r.pulledFrom(t, r.upstream, pull)
}

// pulledFrom is pulled with an image of another registry.
func (r *rig) pulledFrom(t *testing.T, from *registry.Registry, pull func(repository, digest string) error) by {
	t.Helper()
	r.images++
	repository := fmt.Sprintf("alice/image-%d", r.images)
	image := from.Push(t, repository, "v1", registry.Shape{Index: r.images%2 == 0, Size: 1 << 12})
	before, _ := from.Requests("/v2/" + repository + "/")
	if err := pull(repository, image.Digest); err != nil {
		t.Errorf("pulling %s: %v", repository, err)
		return ""
	}
	// The last line of a log may come after the response that it is about.
	var seen string
	for deadline := time.Now().Add(logLimit); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		all, ours := from.Requests("/v2/" + repository + "/")
		all -= before // the push
		lines := r.asked(repository)
		switch {
		case all > 0 && ours == 0 && lines == 0:
			return direct
		case all > ours && lines > 0:
			return fellBack
		case ours > 0 && all == ours && lines >= len(image.Platform):
			return viaSidemirror
		}
		seen = fmt.Sprintf("the registry had %d requests, %d of them from sidemirror, which had %d", all, ours, lines)
	}
	t.Errorf("%s has %d parts; %s", repository, len(image.Platform), seen)
	return ""
}

// asked is how many requests about a repository sidemirror has had.
func (r *rig) asked(repository string) int { return r.askedFor("", repository) }

// askedFor counts those for one kind of content.
func (r *rig) askedFor(kind, repository string) int {
	lines := 0
	for line := range strings.Lines(r.sidemirror.Log()) {
		if strings.Contains(line, "msg=request ") && strings.Contains(line, " repository="+repository+" ") && strings.Contains(line, " kind="+kind) {
			lines++
		}
	}
	return lines
}

// ways are the pulls of one look at a host.
type ways struct {
	criHub, criOther, dockerHub, dockerOther by
}

// look pulls in all four ways.
func (r *rig) look(t *testing.T) ways {
	t.Helper()
	return ways{r.byCRI(t, hubName), r.byCRI(t, otherName), r.byDocker(t, ""), r.byDocker(t, otherName+"/")}
}

// byCRI pulls a new image of a registry by CRI.
func (r *rig) byCRI(t *testing.T, name string) by {
	t.Helper()
	return r.pulled(t, func(repository, digest string) error {
		return r.host.PullCRI(t.Context(), name+"/"+repository+":v1", digest)
	})
}

// byDocker pulls a new image by Docker; prefix is empty for Docker Hub, else "reg.test/".
func (r *rig) byDocker(t *testing.T, prefix string) by {
	t.Helper()
	from := r.upstream
	if prefix == sixName+"/" {
		from = r.six
	}
	return r.pulledFrom(t, from, func(repository, digest string) error {
		return r.host.PullDocker(t.Context(), prefix+repository, "v1", digest)
	})
}

// expect looks, and compares with want.
func (r *rig) expect(t *testing.T, when string, want ways) {
	t.Helper()
	if got := r.look(t); got != want {
		t.Errorf("%s, pulls went\n got %+v\nwant %+v", when, got, want)
	}
}

// dockerOwn pulls by Docker, as from Docker Hub, an image that only the mirror own has, and
// fails the test if that does not succeed or if sidemirror is not asked first as expected.
func (r *rig) dockerOwn(t *testing.T, own *registry.Registry, first bool, when string) {
	t.Helper()
	r.images++
	repository := fmt.Sprintf("alice/own-%d", r.images)
	image := own.Push(t, repository, "v1", registry.Shape{Size: 1 << 12})
	if err := r.host.PullDocker(t.Context(), repository, "v1", image.Digest); err != nil {
		t.Errorf("%s, Docker cannot pull what another mirror has: %v", when, err)
	}
	if asked := r.asked(repository); asked > 0 != first {
		t.Errorf("%s, Docker pulls what another mirror has, and asks sidemirror %d times first", when, asked)
	}
	if strings.Contains(r.host.DockerLog(), "failed to decode") {
		t.Errorf("%s, Docker finds a hosts.toml invalid", when)
	}
}

// triesCRI pulls a new image of Docker Hub by CRI, which may fail. A containerd that has
// ended is started again.
func (r *rig) triesCRI(t *testing.T) error {
	t.Helper()
	r.images++
	repository := fmt.Sprintf("alice/image-%d", r.images)
	image := r.upstream.Push(t, repository, "v1", registry.Shape{Size: 1 << 12})
	err := r.host.PullCRI(t.Context(), hubName+"/"+repository+":v1", image.Digest)
	// One that panics ends its connections before it has ended.
	for end := time.Now().Add(3 * time.Second); err != nil && r.host.ContainerdRuns() && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	if !r.host.ContainerdRuns() {
		r.host.StartContainerd(t)
		return fmt.Errorf("containerd has ended: %w", err)
	}
	return err
}
