package config

import (
	"bytes"
	"strings"
	"testing"
)

func TestOutboundProxyIsReadFromTheFileAndFromVariables(t *testing.T) {
	file := "[outbound]\nhttps_proxy = \"http://user:canary@proxy.example:3128\"\nno_proxy = [\"10.0.0.0/8\", \".corp.example\", \"*\"]\nadopt_proxy = false\n"
	c, err := Source{Environ: []string{"SIDEMIRROR_OUTBOUND_HTTP_PROXY=other.example"}}.Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	o := c.Outbound
	if o.HTTPSProxy.Reveal() != "http://user:canary@proxy.example:3128" || o.HTTPProxy.Reveal() != "other.example" || len(o.NoProxy) != 3 || o.AdoptProxy {
		t.Errorf("%+v", o)
	}
	var shown bytes.Buffer
	if err := c.WriteTOML(&shown); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteJSON(&shown); err != nil {
		t.Fatal(err)
	}
	if text := shown.String(); strings.Contains(text, "canary") || !strings.Contains(text, `https_proxy = "http://xxxxx:xxxxx@proxy.example:3128"`) {
		t.Error(text)
	}
	if _, err := (Source{}).Parse(shown.Bytes()[:bytes.Index(shown.Bytes(), []byte("\n{"))]); err != nil {
		t.Errorf("what is shown cannot be loaded: %v", err)
	}
}

func TestAProxyThatCannotBeUsedIsRefusedWithoutItsText(t *testing.T) {
	for text, says := range map[string]string{
		`"ftp://u:canary@proxy.example"`:           "a scheme that no proxy has",
		`"http://u:can ary@proxy.example"`:         "is not the URL of a proxy",
		`"http://u:canary@"`:                       "is not the URL of a proxy",
		`"http://u:canary@proxy.example/path"`:     "a path",
		`"http://u:canary@b\u00fccher.example"`:    "letters other than ASCII",
		`"http://u:canary@proxy.example:1x"`:       "is not the URL of a proxy",
		`"http://u:canary@127.0.0.1:305"`:          "sidemirror itself listens there",
		`"http://u:canary@localhost:305"`:          "sidemirror itself listens there",
		`["http://u:canary@proxy.example"]`:        "is a list",
		`"` + strings.Repeat("canary", 1000) + `"`: "more than 4096 bytes",
	} {
		for _, key := range []string{"http_proxy", "https_proxy"} {
			_, err := Source{}.Parse([]byte("[outbound]\n" + key + " = " + text + "\n"))
			if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "canary") || strings.Contains(err.Error(), "can ary") {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

func TestWhatIsReachedWithoutAProxyIsChecked(t *testing.T) {
	for text, valid := range map[string]bool{
		"corp.example": true, ".corp.example": true, "corp.example:5000": true, "10.0.0.1": true, "10.0.0.0/8": true, "fd00::/8": true, "*": true,
		"": false, "a b": false, "a\nb": false, "a,b": false, "https://corp.example": false, "10.0.0.0/33": false, "corp.example/x": false,
	} {
		if err := checkNoProxy(text); (err == nil) != valid {
			t.Errorf("%q: %v", text, err)
		}
	}
}
