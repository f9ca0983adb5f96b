package daemon

import (
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/state"
	"github.com/sidemirror/sidemirror/internal/secret"
	"github.com/sidemirror/sidemirror/proxy/upstream"
)

// outbound is the forward proxy through which registries are reached.
type outbound struct {
	proxy *upstream.ForwardProxy // nil if there is none
	shown *state.Outbound        // nil if there is none

	// forRequest returns the proxy for a request that is not for a registry; nil if there is none.
	forRequest func(*http.Request) (*url.URL, error)
}

// environmentProxy returns the forward proxy of sidemirror's environment.
func environmentProxy() *httpproxy.Config { return httpproxy.FromEnvironment() }

// Outbound returns the forward proxy through which a proxy with that configuration reaches registries,
// unless its environment names one; nil if there is none. found is what was handed over.
func Outbound(c *config.Config, found *handover.Proxy) *state.Outbound {
	return chooseOutbound(c, &httpproxy.Config{}, found).shown
}

// chooseOutbound returns the forward proxy of the configuration or, if that has none, of sidemirror's
// environment or, if that has none either, of the engines, which is found.
func chooseOutbound(c *config.Config, environment *httpproxy.Config, found *handover.Proxy) outbound {
	var plain, tls secret.Secret
	var from string
	without := c.Outbound.NoProxy
	switch {
	case !c.Outbound.HTTPProxy.IsZero() || !c.Outbound.HTTPSProxy.IsZero():
		plain, tls, from = c.Outbound.HTTPProxy, c.Outbound.HTTPSProxy, "[outbound] of sidemirror's configuration"
	case environment.HTTPProxy != "" || environment.HTTPSProxy != "":
		plain, tls, from = secret.New(environment.HTTPProxy), secret.New(environment.HTTPSProxy), "sidemirror's environment"
		without = append([]string{environment.NoProxy}, without...)
	case c.Outbound.AdoptProxy && found != nil:
		plain, tls, from = found.HTTP, found.HTTPS, found.From
		without = append([]string{found.NoProxy, environment.NoProxy}, without...)
	}
	noProxy := strings.Trim(strings.Join(without, ","), ",")
	proxy := upstream.NewForwardProxy(plain, tls, noProxy)
	if proxy == nil {
		return outbound{}
	}
	choose := (&httpproxy.Config{HTTPProxy: plain.Reveal(), HTTPSProxy: tls.Reveal(), NoProxy: noProxy}).ProxyFunc()
	return outbound{proxy, &state.Outbound{HTTPProxy: secret.URL(plain), HTTPSProxy: secret.URL(tls), NoProxy: noProxy, From: from}, func(r *http.Request) (*url.URL, error) { return choose(r.URL) }}
}
