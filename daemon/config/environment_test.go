package config

import (
	"strings"
	"testing"
)

func TestEnvironmentOverridesTheFile(t *testing.T) {
	c := mustLoad(t, everything,
		"HOME=/root",
		"SIDEMIRROR_LISTEN=127.0.0.1:1, [::1]:2",
		"SIDEMIRROR_LOG_LEVEL=warn",
		"SIDEMIRROR_TRUST_UIDS=",
		"SIDEMIRROR_ENGINE_CONTAINERD_RESTART=false",
		"SIDEMIRROR_REGISTRY_DOCKER_IO_UPSTREAMS=https://mirror.example,https://registry-1.docker.io",
		"SIDEMIRROR_REGISTRY_REGISTRY_CORP_EXAMPLE_5000_CLIENT_AUTH=relay",
		"SIDEMIRROR_PORT=tcp://10.0.0.1:305", "SIDEMIRROR_PORT_305_TCP_ADDR=10.0.0.1", "SIDEMIRROR_SERVICE_HOST=10.0.0.1",
	)
	if len(c.Listen) != 2 || c.Log.Level != "warn" || len(c.Trust.UIDs) != 0 || c.Engine.Containerd.Restart ||
		len(c.Registry("docker.io").Upstreams) != 2 || c.Registry("registry.corp.example:5000").ClientAuth != "relay" {
		t.Errorf("got %+v", c)
	}
	if from := c.origin("log.level"); from != "SIDEMIRROR_LOG_LEVEL" {
		t.Errorf("log.level comes from %s", from)
	}
}

// cobra's script for fish sets the first of them, and a user who wants no descriptions the second.
func TestVariablesOfTheCompletionAreIgnored(t *testing.T) {
	environ := []string{"SIDEMIRROR_ACTIVE_HELP=0", "SIDEMIRROR_COMPLETION_DESCRIPTIONS=0"}
	if _, err := Load(writeConfig(t, ""), environ); err != nil {
		t.Error(err)
	}
}

func TestFaultyVariableIsNamed(t *testing.T) {
	for _, tt := range []struct{ file, entry, want string }{
		{"", "SIDEMIRROR_LOG_LEVL=info", "SIDEMIRROR_LOG_LEVL: unknown variable\nhint: did you mean SIDEMIRROR_LOG_LEVEL?"},
		{"", "SIDEMIRROR_REGISTRY_CORP_EXAMPLE_UPSTREAMS=https://corp.example", "names no registry that is configured"},
		{"", "SIDEMIRROR_LOG_LEVEL=loud", `SIDEMIRROR_LOG_LEVEL: log.level: "loud" is not a choice`},
		{"", "SIDEMIRROR_ENGINE_DOCKER_ENABLED=perhaps", "SIDEMIRROR_ENGINE_DOCKER_ENABLED: engine.docker.enabled:"},
		{"", "SIDEMIRROR_TRUST_UIDS=root", `SIDEMIRROR_TRUST_UIDS: trust.uids: "root" is not a user id`},
		{"", "SIDEMIRROR_LISTEN=", "SIDEMIRROR_LISTEN: listen: the list is empty"},
		{"[registry.'a-b.c']\n[registry.'a.b-c']", "SIDEMIRROR_REGISTRY_A_B_C_CA=/x", "stands for several keys"},
	} {
		_, err := Load(writeConfig(t, tt.file), []string{tt.entry})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s gave\n%v\nwant %s", tt.entry, err, tt.want)
		}
	}
}
