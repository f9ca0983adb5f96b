package keeper

import (
	"testing"

	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/egress"
	"github.com/sidemirror/sidemirror/internal/secret"
)

func TestTheEnginesProxyIsHandedOver(t *testing.T) {
	folder := t.TempDir()
	plan := hostconfig.Plan{Egress: egress.Found{Proxy: &egress.Proxy{HTTPS: secret.New("http://u:p@proxy.example:3128"), NoProxy: ".corp", From: "docker.service"}}}
	if err := HandOver(folder, plan); err != nil {
		t.Fatal(err)
	}
	h, err := handover.Read(folder)
	if err != nil || h.Proxy == nil || h.Proxy.HTTPS.Reveal() != "http://u:p@proxy.example:3128" || h.Proxy.NoProxy != ".corp" || h.Proxy.From != "docker.service" {
		t.Errorf("%+v, %v", h.Proxy, err)
	}
	if err := HandOver(folder, hostconfig.Plan{}); err != nil {
		t.Fatal(err)
	}
	if h, err := handover.Read(folder); err != nil || h.Proxy != nil {
		t.Errorf("%+v, %v", h.Proxy, err)
	}
}
