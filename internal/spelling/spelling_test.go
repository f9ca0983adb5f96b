package spelling

import (
	"strings"
	"testing"
)

func TestNearestFindsWhatAMisspeltNameMeans(t *testing.T) {
	registries := []string{"docker.io", "ghcr.io", "quay.io", "registry.k8s.io"}
	for name, want := range map[string]string{
		"ghcr.io": "ghcr.io", "gchr.io": "ghcr.io", "GHCR.IO": "ghcr.io", "ghcr.oi": "ghcr.io",
		"quai.io": "quay.io", "dcoker.io": "docker.io", "registy.k8s.io": "registry.k8s.io",
		"registry.corp.example": "", "x": "", "": "", strings.Repeat("ghcr.io", 20): "",
	} {
		if got := Nearest(name, registries); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
	if got := Nearest("x", nil); got != "" {
		t.Errorf("without candidates: %q", got)
	}
}

func TestDistanceCountsAnExchangeOfNeighboursAsOne(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "abd", 1}, {"abc", "abcd", 1}, {"abcd", "badc", 2}} {
		if got := Distance(tt.a, tt.b); got != tt.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
