package oracle

import (
	"testing"

	kubelet "k8s.io/kubernetes/pkg/credentialprovider"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

func TestHostsMatchAsForTheKubelet(t *testing.T) {
	patterns := []string{
		"a.test", "*.test", "a.*", "*.*", "*", "a?.test", "ab*.test", "*b.test", "a*c.test", "a.test:5000", "*.test:5000", "*:5000",
		"*.dkr.ecr.*.amazonaws.com", "*.azurecr.io", "[ab].test", "[a-c].test", "[^a].test", "localhost", "localhost:*", "a.b.test",
	}
	hosts := []string{
		"a.test", "b.test", "c.test", "ab.test", "abc.test", "a.b.test", "test", "a.test:5000", "b.test:5000", "test:5000", "A.test",
		"1.dkr.ecr.eu-west-1.amazonaws.com", "1.dkr.ecr.eu.west.amazonaws.com", "x.azurecr.io", "x.y.azurecr.io", "localhost", "localhost:5000", "a.test.evil.example",
	}
	matching := 0
	for _, pattern := range patterns {
		for _, host := range hosts {
			theirs, err := kubelet.URLsMatchStr(pattern, host)
			if err != nil {
				continue // it takes the pattern for none
			}
			if mine := credential.MatchHost(pattern, host); mine != theirs {
				t.Errorf("%s and %s: %v, and the kubelet %v", pattern, host, mine, theirs)
			}
			if theirs {
				matching++
			}
		}
	}
	if matching < 20 {
		t.Errorf("only %d match", matching)
	}
}
