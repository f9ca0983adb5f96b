package bridge

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inOwnNetwork runs the test on a thread that has a network namespace of its own, with the commands of
// ip(8) applied to it.
func inOwnNetwork(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make network interfaces")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace can be made: %v", err)
	}
}

func ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, line := range commands {
		if out, err := exec.CommandContext(context.WithoutCancel(t.Context()), "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", line, err, out)
		}
	}
}

func TestNetworksAreTheAddressesOfTheBridgesThatAreNamed(t *testing.T) {
	inOwnNetwork(t)
	ip(t, "link set lo up", "link add br-one type bridge", "link add other type bridge", "link add down0 type bridge", "link add br-mac link other type macvlan",
		"address add 172.30.0.1/16 dev br-one", "address add 172.31.0.1/32 dev br-one", "address add 169.254.5.1/16 dev br-one",
		"address add 10.5.0.1/24 dev other", "address add 10.6.0.1/24 dev down0", "address add 10.7.0.1/24 dev br-mac",
		"link set br-one up", "link set other up", "link set br-mac up")
	networks, problems, err := List([]string{"br-o*", "down0"})
	if err != nil || len(problems) != 0 {
		t.Fatal(err, problems)
	}
	if len(networks) != 1 || networks[0].Interface != "br-one" || networks[0].Index == 0 || networks[0].Prefix != netip.MustParsePrefix("172.30.0.1/16") {
		t.Errorf("found %+v", networks)
	}
	networks, problems, err = List([]string{"b*", "lo"})
	if err != nil || len(networks) != 1 || len(problems) != 2 || problems[0].Code != "guests-not-a-bridge" || !strings.Contains(problems[0].Error(), `br-mac is not a bridge (its driver is "macvlan")`) {
		t.Errorf("found %+v, %v, %v", networks, problems, err)
	}
}

func TestNetworkContainsItsGuests(t *testing.T) {
	n := Network{Prefix: netip.MustParsePrefix("172.17.0.1/16")}
	for text, want := range map[string]bool{
		"172.17.0.2": true, "::ffff:172.17.9.9": true, "172.17.0.1": false, "172.18.0.2": false, "127.0.0.1": false, "::1": false,
	} {
		if got := n.Contains(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is a guest: %v", text, got)
		}
	}
}

func TestWatchReportsBridgesThatComeAndGo(t *testing.T) {
	inOwnNetwork(t)
	ctx, cancel := context.WithCancel(t.Context())
	changed, err := Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	await := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s was not reported", what)
		}
	}
	ip(t, "link add br-one type bridge", "link set br-one up")
	await("a new bridge")
	ip(t, "address add 172.30.0.1/16 dev br-one")
	await("a new address")
	ip(t, "link delete br-one")
	await("a bridge that is gone")
	cancel()
	for range changed { // until it is closed
	}
}
