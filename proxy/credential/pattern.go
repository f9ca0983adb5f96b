package credential

import (
	"net"
	"path"
	"strings"
)

// MatchHost reports whether host, with its port if it has one, matches pattern as the kubelet
// matches the keys of its files and plugins: label by label, each with the wildcards of
// [path.Match] except "?", which begins the query of a URL for it. There must be as many labels, and
// the ports must be equal.
func MatchHost(pattern, host string) bool {
	if pattern == host {
		return true
	}
	wantName, wantPort := splitPort(pattern)
	name, port := splitPort(host)
	wantLabels, labels := strings.Split(wantName, "."), strings.Split(name, ".")
	if strings.Contains(pattern, "?") || wantPort != port || len(wantLabels) != len(labels) {
		return false
	}
	for i, label := range labels {
		if ok, err := path.Match(wantLabels[i], label); err != nil || !ok {
			return false
		}
	}
	return true
}

// ValidPattern reports whether pattern is a host, perhaps with a port, whose labels may have
// wildcards.
func ValidPattern(pattern string) bool {
	name, port := splitPort(pattern)
	if strings.ContainsAny(name, "/@:?") {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if _, err := path.Match(label, ""); err != nil {
			return false
		}
	}
	// With the wildcards filled in it must be a name that a registry can have.
	filled := strings.NewReplacer("*", "x", "[", "x", "]", "x", "^", "x", "\\", "x").Replace(name)
	if port != "" {
		filled += ":" + port
	}
	_, namespace, err := ParseKey(filled)
	return err == nil && namespace == ""
}

func splitPort(host string) (name, port string) {
	if name, port, err := net.SplitHostPort(host); err == nil && !strings.HasPrefix(host, "[") {
		return name, port
	}
	return host, ""
}
