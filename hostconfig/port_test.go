package hostconfig

import (
	"slices"
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/internal/portowner"
)

const anyPort = "http://127.0.0.1:5115" // every user can listen there

func atPort(mirror string) engine.Desired {
	want := containerdOnly("r.example")
	want.Mirror = mirror
	return want
}

func runningContainerd(t *testing.T) (*Host, *fakeRunning) {
	h := host(t, map[string]string{"/etc/containerd/config.toml": "version = 2\n" + criV2 + "\nconfig_path = \"/etc/containerd/certs.d\"\n"})
	fake := idle(h)
	fake.containerd = []string{"containerd"}
	return h, fake
}

func codes(plan Plan) []string {
	var list []string
	for _, p := range plan.Refused {
		list = append(list, string(p.Code))
	}
	return list
}

func TestAPortThatEveryUserCanTakeIsRefusedUnlessItIsAllowed(t *testing.T) {
	h, _ := runningContainerd(t)
	before := h.snapshot(t)
	if _, err := h.try(t, atPort(anyPort)); err == nil || !strings.Contains(err.Error(), "any user can listen at port 5115") {
		t.Errorf("error: %v", err)
	}
	contains(t, refusals(h.plan(t, atPort(anyPort))), "--allow-unprivileged-port")
	sameTree(t, before, h.snapshot(t))
	want := atPort(anyPort)
	want.AllowUnprivilegedPort = true
	h.apply(t, want)
	contains(t, h.get(t, rHosts), anyPort)
	// Later runs, and the watching service, remember it.
	want = atPort(anyPort)
	want.Registries = append(want.Registries, "more.example")
	h.apply(t, want)
	contains(t, h.get(t, containerdHosts+"/more.example/hosts.toml"), anyPort)
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
	if _, err := h.try(t, atPort(anyPort)); err == nil {
		t.Error("revert did not take the permission back")
	}
}

func TestWhichPortsEveryUserCanTakeIsTheHostsSetting(t *testing.T) {
	for first, refused := range map[uint16]bool{1024: false, 305: true, 306: false, 1: true} {
		h, fake := runningContainerd(t)
		fake.firstPort = first
		if plan := h.plan(t, containerdOnly("r.example")); slices.Contains(codes(plan), "port-unprivileged") != refused || (len(plan.Changes) == 0) != refused {
			t.Errorf("from %d on: %s", first, refusals(plan))
		}
	}
}

func TestInATreeAnUnprivilegedPortIsANote(t *testing.T) {
	h := host(t, map[string]string{"/etc/containerd/": ""})
	plan := h.plan(t, atPort(anyPort))
	if len(plan.Notes) != 1 || plan.Notes[0].Code != "port-unprivileged" || len(plan.Changes) != 1 {
		t.Errorf("notes %v, changes %v", plan.Notes, plan.Changes)
	}
}

func TestNoEngineIsPointedAtAnotherUsersListener(t *testing.T) {
	h, fake := runningContainerd(t)
	before := h.snapshot(t)
	h.apply(t, containerdOnly("r.example"))
	fake.owner = portowner.Owner{Found: true, Name: `"mallory"`}
	plan := h.plan(t, containerdOnly("r.example", "more.example"))
	if !slices.Contains(codes(plan), "proxy-port-taken") || len(plan.Changes) != 1 || !plan.Changes[0].Restores {
		t.Errorf("changes %+v\n%s", plan.Changes, refusals(plan))
	}
	if _, err := h.try(t, containerdOnly("r.example")); err == nil || !strings.Contains(err.Error(), `user "mallory" listens here`) {
		t.Errorf("error: %v", err)
	}
	h.missing(t, rHosts)
	fake.owner.Trusted = true
	h.apply(t, containerdOnly("r.example"))
	contains(t, h.get(t, rHosts), ourURL)
	h.revert(t)
	sameTree(t, before, h.snapshot(t))
}

func TestThatNoProcessListensIsANote(t *testing.T) {
	h, fake := runningContainerd(t)
	if plan := h.plan(t, containerdOnly("r.example")); len(plan.Notes) != 1 || plan.Notes[0].Code != "proxy-not-listening" || len(plan.Changes) != 1 {
		t.Errorf("%+v", plan)
	}
	fake.owner = portowner.Owner{Found: true, Trusted: true}
	if plan := h.plan(t, containerdOnly("r.example")); len(plan.Notes) != 0 {
		t.Errorf("%+v", plan.Notes)
	}
}

// What was written earlier stays: containerd 1.x ignores a file that names an IPv6 address, with all
// other hosts in it.
func TestAnIPv6AddressIsNotWritten(t *testing.T) {
	h := host(t, map[string]string{rHosts: theirs})
	before := h.snapshot(t)
	for _, mirror := range []string{"http://[::1]:305", "http://nowhere", "not a URL"} {
		plan := h.plan(t, atPort(mirror))
		if len(plan.Refused) != 1 || len(plan.Changes) != 0 {
			t.Errorf("%s: %+v", mirror, plan)
		}
		contains(t, refusals(plan), "127.0.0.1:305")
	}
	sameTree(t, before, h.snapshot(t))
	h.apply(t, containerdOnly("r.example"))
	after := h.snapshot(t)
	if _, err := h.try(t, atPort("http://[::1]:305")); err == nil {
		t.Error("no error")
	}
	sameTree(t, after, h.snapshot(t))
}
