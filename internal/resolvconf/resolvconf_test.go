package resolvconf

import (
	"fmt"
	"strings"
	"testing"
)

func TestLinkLocalNameServersAreFoundAsTheResolverReadsTheFile(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "[]",
		"nameserver 127.0.0.53\n":   "[]",
		"nameserver 169.254.1.1":    "[169.254.1.1]",
		"nameserver\tfe80::1%eth0 ": "[fe80::1%eth0]",
		"# nameserver 169.254.1.1\nsearch x\nnameserver 8.8.8.8\n":                                             "[]",
		"nameserver\nnameserver x\nnameserver 169.254.1.1 \n":                                                  "[169.254.1.1]",
		"nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 169.254.1.1\n":              "[]",
		"options ndots:5\nnameserver 169.254.1.1\nnameserver 10.0.0.1\nnameserver fe80::2\n":                   "[169.254.1.1 fe80::2]",
		strings.Repeat("# a long comment, many times\n", 4000) + "nameserver 169.254.1.1\n":                    "[]",
		"nameserver 169.254.1.1 # of the cloud\n" + strings.Repeat("x", 70<<10) + "\nnameserver 169.254.1.2\n": "[169.254.1.1]",
	} {
		if got := fmt.Sprint(LinkLocal([]byte(text))); got != want {
			t.Errorf("%.100q: %s, want %s", text, got, want)
		}
	}
}
