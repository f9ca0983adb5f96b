package boot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/test/engine/cri"
)

// pullLimit bounds one pull: engines before containerd 2.3 wait for a silent mirror
// for ever, and so would a test.
const pullLimit = 60 * time.Second

// A puller is a way to pull: docker's or the kubelet's.
type puller struct {
	name string
	pull func(m *machine, reference string) error
}

var (
	docker     = puller{"docker", (*machine).dockerPull}
	kubernetes = puller{"cri", (*machine).criPull}
	pullers    = []puller{docker, kubernetes}
)

// dockerPull pulls as `docker pull` does.
func (m *machine) dockerPull(reference string) error {
	m.t.Helper()
	_, err := m.try(fmt.Sprintf("timeout %.0f docker pull --quiet %s", pullLimit.Seconds(), reference))
	return err
}

// criPull pulls as the kubelet does, without a pull secret.
func (m *machine) criPull(reference string) error {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), pullLimit)
	defer cancel()
	socket := fmt.Sprintf("/proc/%d/root/run/containerd/containerd.sock", m.leader)
	_, err := cri.Pull(ctx, socket, reference, "", "")
	return err
}

// served counts the lines of sidemirror's access log since the machine was made
// that say a manifest or a blob of the repository was given away, whole or in part.
func (m *machine) served(registry, repository string) int {
	m.t.Helper()
	count := 0
	for _, line := range m.journal("sidemirror.service") {
		if field(line, "registry") == registry && field(line, "repository") == repository && strings.HasPrefix(field(line, "status"), "20") {
			count++
		}
	}
	return count
}

// field is the value of key=value in a line of the log; "" where it has none.
func field(line, key string) string {
	found := regexp.MustCompile(`(?:^| )` + key + `="?([^" ]*)`).FindStringSubmatch(line)
	if found == nil {
		return ""
	}
	return found[1]
}

// journal returns the messages of a unit, from all boots.
func (m *machine) journal(unit string) []string {
	m.t.Helper()
	var messages []string
	for line := range strings.Lines(m.run("journalctl --no-pager --output=json --unit=" + unit)) {
		var entry struct {
			Message string `json:"MESSAGE"`
		}
		// A message that is not UTF-8 is an array of numbers: none of ours.
		var mistyped *json.UnmarshalTypeError
		if err := json.Unmarshal([]byte(line), &entry); err != nil && !errors.As(err, &mistyped) {
			m.t.Fatalf("journalctl printed %q: %v", line, err)
		}
		messages = append(messages, entry.Message)
	}
	return messages
}

// reference returns the name that an engine pulls. The tag is always v1.
func reference(host, repository string) string {
	if host == hub {
		host = "docker.io"
	}
	return host + "/" + repository + ":v1"
}
