package secret

import "testing"

func TestURLIsShownWithoutItsLogin(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "",
		"http://proxy.example:3128":          "http://proxy.example:3128",
		"proxy.example:3128":                 "http://proxy.example:3128",
		"http://u:canary@proxy.example:3128": "http://xxxxx:xxxxx@proxy.example:3128",
		"http://canary@proxy.example":        "http://xxxxx:xxxxx@proxy.example",
		"u:canary@proxy.example:3128":        "http://xxxxx:xxxxx@proxy.example:3128",
		"socks5://u:can%40ary@proxy.example": "socks5://xxxxx:xxxxx@proxy.example",
		"http://proxy.example/canary?canary": "http://proxy.example",
		"http://u:can ary@proxy.example":     redacted,
		"canary":                             "http://canary",
		"http://u:canary@":                   redacted,
	} {
		if got := URL(New(text)); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
