package main

import (
	"strings"
	"testing"
)

func TestPlanOffersThePluginsOfTheKubelet(t *testing.T) {
	files := map[string]string{
		"etc/docker/x":                           "",
		"usr/lib/systemd/system/kubelet.service": "[Service]\nExecStart=/usr/bin/kubelet --image-credential-provider-config=/etc/k/config.yaml --image-credential-provider-bin-dir=/opt/k/bin\n",
	}
	root := tree(t, files)
	out, _ := command(t, exitUsage, "plan", "--root", root)
	wants(t, out, "note: /etc/k/config.yaml: the kubelet gets logins from its credential provider plugins", `plugins = "/etc/k/config.yaml"`, `plugin_dir = "/opt/k/bin"`)
	files["etc/sidemirror/config.toml"] = "[credentials]\nplugins = \"/etc/k/config.yaml\"\nplugin_dir = \"/opt/k/bin\"\n"
	out, _ = command(t, exitUsage, "plan", "--root", tree(t, files))
	if strings.Contains(out, "kubelet") {
		t.Errorf("they are in use:\n%s", out)
	}
}
