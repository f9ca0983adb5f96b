package config

import (
	"strings"
	"testing"
)

func TestEnginesGetIPv4LoopbackIfItIsServed(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"'127.0.0.1:305', '[::1]:305'":    "http://127.0.0.1:305",
		"'[::1]:305', '127.0.0.2:306'":    "http://127.0.0.2:306",
		"'[::1]:305', '0.0.0.0:80'":       "http://127.0.0.1:80",
		"'10.0.0.1:1', '127.0.0.1:2'":     "http://127.0.0.1:2",
		"'[::1]:305'":                     "http://[::1]:305",
		"'[::]:305'":                      "http://[::1]:305",
		"'10.0.0.1:1', '[2001:db8::1]:2'": "",
	} {
		got, err := mustLoad(t, "listen = ["+listen+"]\n").MirrorURL()
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%s: %q, %v; want %q", listen, got, err, want)
		}
		if coded, ok := err.(interface{ ExitCode() int }); err != nil && (!ok || coded.ExitCode() != 2 || !strings.Contains(err.Error(), "127.0.0.1:305")) {
			t.Errorf("the error is %v", err)
		}
	}
}
