package main

import (
	"strings"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/secret"
)

func TestOutboundSaysWhichProxyIsUsedAndWhereItIsSet(t *testing.T) {
	for want, o := range map[string]*state.Outbound{
		"": nil,
		"outbound    through http://proxy.example:3128 (docker.service)\n":                                                        {HTTPProxy: "http://proxy.example:3128", HTTPSProxy: "http://proxy.example:3128", From: "docker.service"},
		"outbound    https through http://xxxxx:xxxxx@proxy.example:3128 (docker.service); directly: 10.0.0.0/8, .corp.example\n": {HTTPSProxy: "http://xxxxx:xxxxx@proxy.example:3128", NoProxy: "10.0.0.0/8,.corp.example", From: "docker.service"},
		"outbound    https through http://a.example, http through http://b.example (crio.service)\n":                              {HTTPSProxy: "http://a.example", HTTPProxy: "http://b.example", From: "crio.service"},
		"outbound    through http://a.example (a\\u001b[31m)\n":                                                                   {HTTPSProxy: "http://a.example", HTTPProxy: "http://a.example", From: "a\x1b[31m"},
	} {
		var out strings.Builder
		(&printer{w: &out}).outbound(o)
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
	}
}

func TestConfigShowNamesTheEnginesProxyIfItIsUsed(t *testing.T) {
	folder := t.TempDir()
	proxy := &handover.Proxy{HTTPS: secret.New("http://u:canary@proxy.example:3128"), From: "docker.service"}
	if err := handover.Write(folder, handover.Handover{Proxy: proxy}, nil); err != nil {
		t.Fatal(err)
	}
	const comment = "# Registries are reached https through http://xxxxx:xxxxx@proxy.example:3128 (docker.service).\n"
	for settings, shown := range map[string]bool{
		"":                                   true,
		"adopt_proxy = false\n":              false,
		"https_proxy = 'http://a.example'\n": false,
	} {
		file := configFile(t, "[engine]\nhandover_dir = '"+folder+"'\n[outbound]\n"+settings)
		out, _, code := invoke(t, "config", "show", "--config", file)
		if code != 0 || strings.Contains(out, comment) != shown || strings.Contains(out, "canary") {
			t.Errorf("%q: exit code %d\n%s", settings, code, out)
		}
	}
}
