package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// guestKind is a kind of guest that setup-guest knows.
type guestKind struct {
	name    string
	bridge  string // "" if it is that of a Docker network
	network string // the Docker network
	text    string // with MIRROR for sidemirror's host and port
}

// hostsFile is what a containerd, or a Docker with containerd's store, needs for each registry.
const hostsFile = `  server = "https://registry-1.docker.io"
  [host."http://MIRROR"]
    capabilities = ["pull", "resolve"]
`

// guestKinds are the kinds in the order of the help.
var guestKinds = []guestKind{
	{name: "dind", bridge: dockersBridge, text: `Start Docker in Docker with sidemirror as the mirror of Docker Hub:

  docker run --privileged -d docker:dind --registry-mirror=http://MIRROR

For other registries, Docker 28 and newer read /etc/docker/certs.d/REGISTRY/hosts.toml:

` + strings.Replace(hostsFile, "registry-1.docker.io", "ghcr.io", 1)},
	{name: "buildx", bridge: dockersBridge, text: `Let sidemirror write ~/.docker/buildx/buildkitd.default.toml, and create your builders again:

  sidemirror setup-buildx
  docker buildx create --use

Or write it yourself:

  [registry."docker.io"]
    mirrors = ["MIRROR"]
  [registry."MIRROR"]
    http = true
`},
	{name: "kind", network: "kind", text: `Create the cluster with this configuration (kind create cluster --config FILE):

  kind: Cluster
  apiVersion: kind.x-k8s.io/v1alpha4
  containerdConfigPatches:
  - |-
    [plugins."io.containerd.grpc.v1.cri".registry]
      config_path = "/etc/containerd/certs.d"

Then write into each node /etc/containerd/certs.d/docker.io/hosts.toml:

` + hostsFile},
	{name: "minikube", network: "minikube", text: `Start minikube with sidemirror as the mirror of Docker Hub:

  minikube start --registry-mirror=http://MIRROR
`},
	{name: "gitlab-runner", bridge: dockersBridge, text: `In /etc/gitlab-runner/config.toml, give the service docker:dind of the jobs a mirror:

  [[runners]]
    [runners.docker]
      [[runners.docker.services]]
        name = "docker:dind"
        command = ["--registry-mirror", "http://MIRROR"]
`},
	{name: "lima", bridge: "virbr0", text: `For a virtual machine on that bridge, add to its YAML file:

  provision:
  - mode: system
    script: |
      mkdir -p /etc/containerd/certs.d/docker.io
      cat >/etc/containerd/certs.d/docker.io/hosts.toml <<'EOF'
      server = "https://registry-1.docker.io"
      [host."http://MIRROR"]
        capabilities = ["pull", "resolve"]
      EOF
`},
}

func guestNames() (names []string) {
	for _, k := range guestKinds {
		names = append(names, k.name)
	}
	return names
}

func newSetupGuestCommand(g *globals) *cobra.Command {
	var on string
	var write, asJSON bool
	cmd := &cobra.Command{
		Use:   "setup-guest KIND",
		Short: "Show what a guest of this host needs to pull through sidemirror",
		Long: `Print the lines that a guest needs to pull through sidemirror, with the address that
this host has on the guest's bridge. KIND is dind, buildx, kind, minikube,
gitlab-runner or lima. The bridge must be named in guests.networks.

The bridge is Docker's default one, docker0, for dind, buildx and gitlab-runner; that of
Docker's network of the same name for kind and minikube; and libvirt's virbr0 for lima.

With --write, the lines are written if they belong in a file of yours, which is so for
buildx alone: that is the same as "sidemirror setup-buildx".`,
		Example: `  sidemirror setup-guest dind
  sidemirror setup-guest kind --bridge br-5f2c0d1e9a77`,
		ValidArgs: guestNames(),
		Args:      choiceArg("a kind of guest", guestNames()...),
		RunE: func(cmd *cobra.Command, args []string) error {
			kind := guestKinds[slices.Index(guestNames(), args[0])]
			c, err := config.Load(g.configPath, os.Environ())
			if err != nil {
				return err
			}
			if on == "" {
				if on, err = kind.findBridge(cmd.Context()); err != nil {
					return err
				}
			}
			if write && kind.name != "buildx" {
				return misused(cmd, fmt.Errorf("what %s needs does not belong in a file of yours, so there is nothing to write", kind.name))
			}
			if write {
				return buildxSetup{globals: g, out: cmd.OutOrStdout(), json: asJSON, bridge: on}.do()
			}
			at, err := guestAddress(c, on)
			if err != nil {
				return err
			}
			lines := guestLines{Kind: kind.name, Bridge: on, Mirror: at.String(), Notes: append([]*problem.Problem{}, silence(at)...)}
			lines.Text = strings.ReplaceAll(kind.text, "MIRROR", lines.Mirror)
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), lines)
			}
			if _, err := io.WriteString(cmd.OutOrStdout(), lines.Text); err != nil {
				return err
			}
			return writeNotes(cmd.ErrOrStderr(), lines.Notes)
		},
	}
	cmd.Flags().StringVar(&on, "bridge", "", "the `name` of the bridge that the guest is on")
	cmd.Flags().BoolVar(&write, "write", false, "write the lines, if they belong in a file of yours")
	addJSON(cmd, &asJSON)
	return cmd
}

// guestLines is what "sidemirror setup-guest --json" prints. docs/json.md describes it.
type guestLines struct {
	Kind   string             `json:"kind"`
	Bridge string             `json:"bridge"`
	Mirror string             `json:"mirror"` // where the guest reaches sidemirror
	Text   string             `json:"text"`
	Notes  []*problem.Problem `json:"notes"`
}

// findBridge returns the bridge that guests of that kind are usually on.
func (k guestKind) findBridge(ctx context.Context) (string, error) {
	if k.bridge != "" {
		return k.bridge, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", "network", "inspect", "--format", "{{.Id}}", k.network).Output()
	id := strings.TrimSpace(string(out))
	if err != nil || len(id) < 12 {
		return "", &problem.Problem{
			Code: "no-such-network", Text: fmt.Sprintf("Docker has no network %s, or cannot be asked for it", k.network), Err: err,
			Hint: "create the cluster once, which makes its network; or name the bridge with --bridge",
		}
	}
	return "br-" + id[:12], nil // the name that Docker gives the bridge of a network
}
