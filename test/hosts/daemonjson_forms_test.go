package hosts_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/registry"
)

// utf16Text is text in UTF-16 with a byte order mark.
func utf16Text(order binary.AppendByteOrder, text string) string {
	var out []byte
	for _, unit := range append([]uint16{0xfeff}, utf16.Encode([]rune(text))...) {
		out = order.AppendUint16(out, unit)
	}
	return string(out)
}

// What dockerd reads, sidemirror must read too: a mirror that it overlooks in daemon.json
// is lost to Docker, because the hosts.toml of Docker Hub overrides that file.
func TestDaemonJSONInEveryFormThatDockerReads(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Bookworm, engine.Trixie, engine.Sid, engine.Built}, func(t *testing.T, g engine.Generation) {
		own := registry.Start(t, registry.Options{})
		r := newRig(t, rigOptions{generation: g})
		list := fmt.Sprintf(`"registry-mirrors": [%q]`, own.URL)
		plain := dockerJSON(g, list)
		forms := map[string]string{
			"byte order mark":         "\ufeff" + plain,
			"UTF-16 little endian":    utf16Text(binary.LittleEndian, plain),
			"UTF-16 big endian":       utf16Text(binary.BigEndian, plain),
			"a key twice":             dockerJSON(g, `"registry-mirrors": ["https://first.test"]`, list),
			"unknown key, no members": dockerJSON(g, list, `"x-ours": {}`),
			"tabs and CRLF":           strings.ReplaceAll(plain, ", ", ",\r\n\t"),
		}
		if g == engine.Bookworm {
			// 20.10 starts with none of these.
			for _, name := range []string{"byte order mark", "UTF-16 little endian", "UTF-16 big endian", "unknown key, no members"} {
				delete(forms, name)
			}
		}
		for name, form := range forms {
			t.Run(name, func(t *testing.T) {
				r.put(t, map[string]string{"/etc/docker/daemon.json": form})
				r.host.StartDocker(t)
				r.dockerOwn(t, own, false, "before apply")
				first := r.takeTree(t)
				r.do(t, 0, "apply")
				if got := r.byDocker(t, ""); got != viaSidemirror {
					t.Errorf("after apply Docker pulls from Docker Hub %s", got)
				}
				r.dockerOwn(t, own, true, "after apply")
				r.host.StartDocker(t) // from the file as it is now
				r.dockerOwn(t, own, true, "after apply and a restart of Docker")
				r.do(t, 0, "plan")
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", first)
				r.dockerOwn(t, own, false, "after revert")
			})
		}
	})
}

// What dockerd does not read, sidemirror does not read either. Nothing of Docker is changed
// then, and revert takes out what was written before.
func TestADaemonJSONThatDockerDoesNotReadIsLeftAlone(t *testing.T) {
	engine.NeedRoot(t)
	each(t, []engine.Generation{engine.Bookworm, engine.Built}, func(t *testing.T, g engine.Generation) {
		r := newRig(t, rigOptions{generation: g})
		for name, form := range map[string]string{
			"comment":        "{\n  // mine\n  \"log-level\": \"info\"\n}\n",
			"trailing comma": "{\"log-level\": \"info\",}\n",
			"cut off":        "{\"log-level\": \"in",
			"a list":         "[]\n",
		} {
			t.Run(name, func(t *testing.T) {
				// The running dockerd has its configuration from before.
				r.put(t, map[string]string{"/etc/docker/daemon.json": dockerJSON(g)})
				r.host.StartDocker(t)
				before := r.takeTree(t)
				r.put(t, map[string]string{"/etc/docker/daemon.json": form})
				broken := r.takeTree(t)
				_, stderr := r.do(t, 1, "apply", "--engine", "docker")
				if !strings.Contains(stderr, "/etc/docker/daemon.json") {
					t.Errorf("apply does not name the file:\n%s", stderr)
				}
				r.sameTree(t, "after apply", broken)
				if got := r.byDocker(t, ""); got != direct {
					t.Errorf("after apply Docker pulls %s", got)
				}
				r.do(t, 0, "revert")
				r.sameTree(t, "after revert", broken)

				// What apply wrote before the file became unreadable must not stay for ever.
				r.put(t, map[string]string{"/etc/docker/daemon.json": dockerJSON(g)})
				r.do(t, 0, "apply")
				r.put(t, map[string]string{"/etc/docker/daemon.json": form})
				_, stderr, _ = r.run(t, "revert")
				if found := withoutDaemonJSON(before.unlike(r.takeTree(t))); g == engine.Built && len(found) > 0 {
					t.Errorf("revert leaves behind:\n%s\n%s", strings.Join(found, "\n"), stderr)
				}
			})
		}
	})
}

// withoutDaemonJSON drops the differences of the file that the test itself changes.
func withoutDaemonJSON(differences []string) (rest []string) {
	for _, text := range differences {
		if !strings.HasPrefix(text, "/etc/docker/daemon.json\n") {
			rest = append(rest, text)
		}
	}
	return rest
}
