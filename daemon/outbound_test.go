package daemon

import (
	"encoding/json"
	"strings"
	"testing"

	"golang.org/x/net/http/httpproxy"

	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/internal/secret"
)

func TestWhichForwardProxyIsUsed(t *testing.T) {
	const own = "[outbound]\nhttps_proxy = 'http://u:canary@own.example:1'\n"
	variables := &httpproxy.Config{HTTPProxy: "http://env.example:2", NoProxy: "env"}
	engines := &handover.Proxy{HTTPS: secret.New("http://u:canary@engine.example:3"), NoProxy: "10.0.0.0/8,.corp", From: "docker.service"}
	none := &httpproxy.Config{}
	for name, test := range map[string]struct {
		file    string
		env     *httpproxy.Config
		engines *handover.Proxy
		want    string // as JSON
	}{
		"none":                 {"", none, nil, "null"},
		"the configuration's":  {own + "no_proxy = ['a', 'b']\n", variables, engines, `{"https_proxy":"http://xxxxx:xxxxx@own.example:1","no_proxy":"a,b","from":"[outbound] of sidemirror's configuration"}`},
		"the environment's":    {"", variables, engines, `{"http_proxy":"http://env.example:2","no_proxy":"env","from":"sidemirror's environment"}`},
		"the engines'":         {"", none, engines, `{"https_proxy":"http://xxxxx:xxxxx@engine.example:3","no_proxy":"10.0.0.0/8,.corp","from":"docker.service"}`},
		"more without a proxy": {"[outbound]\nno_proxy = ['a']\n", &httpproxy.Config{NoProxy: "env"}, engines, `{"https_proxy":"http://xxxxx:xxxxx@engine.example:3","no_proxy":"10.0.0.0/8,.corp,env,a","from":"docker.service"}`},
		"not the engines'":     {"[outbound]\nadopt_proxy = false\n", none, engines, "null"},
		"nothing usable":       {"", none, &handover.Proxy{HTTPS: secret.New("ftp://engine.example"), From: "docker.service"}, "null"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := config.Source{}.Parse([]byte(test.file))
			if err != nil {
				t.Fatal(err)
			}
			got := chooseOutbound(c, test.env, test.engines)
			text, err := json.Marshal(got.shown)
			if err != nil || string(text) != test.want || (got.proxy == nil) != (test.want == "null") {
				t.Errorf("got %s, %v", text, err)
			}
			if strings.Contains(string(text), "canary") {
				t.Error("the password is shown")
			}
		})
	}
}
