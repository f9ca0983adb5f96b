package credentials

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// misbehaving are helpers, each with what the log must say about it.
var misbehaving = map[string]struct{ script, log string }{
	"prints its secret and fails": {"echo " + canary + "; echo " + canary + " >&2; exit 1", "failed when it was asked"},
	"prints a gibibyte":           {"exec yes " + canary, "printed more than 64 KiB"},
	"prints garbage":              {"echo '{" + canary + "'", "not the JSON of a login"},
	"hangs and forks":             {"sleep 1000 & sleep 1000 & echo " + canary + "; sleep 1000", "took too long, and was killed"},
	"is killed":                   {"kill -9 $$", "failed when it was asked"},
}

func TestAHelperThatMisbehavesIsBoundedAndPublicImagesStayAvailable(t *testing.T) {
	for name, tt := range misbehaving {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := quirky.New(t, quirky.Options{Auth: quirky.Auth{Scheme: "Basic", Users: map[string]string{"me": canary}, Private: []string{"team/"}}})
			up.Add(repo, "v1", image)
			up.Add("open/app", "v1", image)
			dir := helpers(t, map[string]string{"odd": tt.script})
			s := harness.Start(t, harness.Options{
				Registries: []harness.Registry{{Name: up.Host(), Upstreams: []string{up.URL()}}},
				Env:        []string{"SIDEMIRROR_CREDENTIALS_HELPERS=127.0.0.1:" + up.Host()[strings.LastIndexByte(up.Host(), ':')+1:] + "=odd", "SIDEMIRROR_CREDENTIALS_HELPER_DIRS=" + dir},
				Secrets:    []string{canary},
			})
			s.Get("/v2/open/app/manifests/v1?ns="+up.Host(), nil).Whole(t, "a public image", image.Bytes)
			refused := s.Get("/v2/"+repo+"/manifests/v1?ns="+up.Host(), nil)
			refused.Is(t, "a private image", 401)
			if strings.Contains(refused.Says(), canary) {
				t.Error("the answer has the secret")
			}
			s.Eventually("the log says what happened", func() bool { return strings.Contains(s.Log(), tt.log) })
			if children := childrenOf(t, s.PID()); len(children) != 0 {
				t.Errorf("%d processes are left: %v", len(children), children)
			}
			for _, file := range []string{"cmdline", "environ"} {
				data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", s.PID(), file))
				if err != nil || strings.Contains(string(data), canary) {
					t.Errorf("%s of the daemon: %v", file, err)
				}
			}
		})
	}
}

// childrenOf returns the processes whose parent is pid, after a moment for those that are ending.
func childrenOf(t *testing.T, pid int) (children []string) {
	t.Helper()
	for range 100 {
		children = nil
		stats, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, stat := range stats {
			data, _ := os.ReadFile(stat)
			text := string(data)
			after := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
			if len(after) > 1 && after[1] == fmt.Sprint(pid) {
				children = append(children, text)
			}
		}
		if len(children) == 0 {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return children
}
