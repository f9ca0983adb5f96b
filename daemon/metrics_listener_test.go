package daemon

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request(t, url))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestMetricsAreServedWhereTheConfigurationSays(t *testing.T) {
	var log bytes.Buffer
	addr := freeAddr(t)
	d, _ := serving(t, "[metrics]\nlisten = [\""+addr+"\"]\n", &log)
	t.Cleanup(d.scraped.close)
	if status, body := fetch(t, "http://"+addr+"/metrics"); status != 200 || !strings.Contains(body, "sidemirror_build_info") {
		t.Errorf("%d %s", status, body)
	}
	if status, body := fetch(t, "http://"+addr+"/readyz"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	if status, _ := fetch(t, "http://"+addr+"/v1/activity"); status != 404 {
		t.Errorf("other hosts learn which images are pulled: %d", status)
	}
	other := freeAddr(t)
	d.scraped.follow(t.Context(), []netip.AddrPort{netip.MustParseAddrPort(other)})
	if status, _ := fetch(t, "http://"+addr+"/metrics"); status != 0 {
		t.Errorf("the old address still serves: %d", status)
	}
	if status, _ := fetch(t, "http://"+other+"/healthz"); status != 200 {
		t.Errorf("the new address responds %d", status)
	}
}

func TestAnAddressForMetricsThatIsTakenIsAProblemOnly(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	var log bytes.Buffer
	d, c := serving(t, "[metrics]\nlisten = [\""+taken.Addr().String()+"\"]\n", &log)
	t.Cleanup(d.scraped.close)
	if status, _ := fetch(t, "http://"+c.Listen[0].String()+"/"); status != 200 {
		t.Errorf("the proxy responds %d", status)
	}
	if s := d.Status(d.started); len(s.Addresses) != 1 || !s.Configuration.InForce || len(s.Configuration.Registries) == 0 || s.Cache != nil {
		t.Errorf("%+v", s)
	}
	_, errs, _ := codes(d, d.started)
	if len(errs) != 1 || errs[0] != "metrics-unavailable" {
		t.Errorf("problems: %q", errs)
	}
}
