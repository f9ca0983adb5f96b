package containersimage

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// otherPorts are ports at which a host of a registry often has another registry. The library takes
// an entry for "host" for one of "host:5000" too, and then fails to make a name of
// "127.0.0.1:305/host:5000/image". An entry for such a port, without sidemirror, prevents that.
var otherPorts = []string{
	"80", "443", "3000", "4443", "4567", "5000", "5001", "5002", "5003", "5005", "5050", "5443", "8080", "8081", "8082", "8083", "8084",
	"8085", "8443", "8444",
}

// alone are hosts that have one registry, at port 443.
var alone = []string{"docker.io", "ghcr.io", "quay.io", "registry.k8s.io"}

const (
	maxKnownPorts = 64  // of one host, that the files of a host name
	maxPortFiles  = 256 // of one folder
)

// portFiles are files and folders in which images of a host, or logins and certificates for
// registries, are named. sidemirror's own file comes first: a pull from a port that is in it must
// not fail when the login that named that port is gone.
var portFiles = []string{
	File,
	"/run/containers/0/auth.json", "/root/.config/containers/auth.json", "/root/.docker/config.json", "/var/lib/kubelet/config.json",
	folder + "/policy.json", folder + "/registries.d/", folder + "/systemd/", folder + "/certs.d/",
	"/etc/docker/daemon.json", "/etc/docker/certs.d/", "/etc/containerd/certs.d/",
	"/etc/kubernetes/manifests/", "/etc/systemd/system/",
}

// hostAndPort is a registry's name with a port in a text of any format.
var hostAndPort = lazyregexp.New(`[A-Za-z0-9][A-Za-z0-9.-]*:[0-9]{1,5}\b`)

// knownPorts returns the ports of some hosts that the files of a host name, as "host:port". It does not
// matter what a file means by it: an entry for a port that no registry has does no harm.
func knownPorts(tree *hostfs.Host, hosts []string) (names []string) {
	note := func(text string) {
		for _, name := range hostAndPort().FindAllString(text, -1) {
			host, port, _ := strings.Cut(strings.ToLower(name), ":")
			number, err := strconv.ParseUint(port, 10, 16)
			if err != nil || number == 0 || !slices.Contains(hosts, host) {
				continue
			}
			name = host + ":" + strconv.FormatUint(number, 10)
			if !slices.Contains(names, name) && count(names, host) < maxKnownPorts {
				names = append(names, name)
			}
		}
	}
	for _, name := range portFiles {
		folder, is := strings.CutSuffix(name, "/")
		if !is {
			note(textOf(tree, name))
			continue
		}
		list, err := tree.Names(folder)
		if err != nil {
			continue // such as root's home, which the watching service does not see
		}
		for _, item := range list[:min(len(list), maxPortFiles)] {
			note(item.Name())
			if item.Type().IsRegular() {
				note(textOf(tree, path.Join(folder, item.Name())))
			}
		}
	}
	slices.Sort(names)
	return names
}

// count returns how many of some names are those of a host.
func count(names []string, host string) (n int) {
	for _, name := range names {
		if strings.HasPrefix(name, host+":") {
			n++
		}
	}
	return n
}

// textOf returns a file, or nothing if it is missing or cannot be read: it is only a hint.
func textOf(tree *hostfs.Host, name string) string {
	f, err := tree.Read(name)
	if err != nil {
		return ""
	}
	return string(f.Data)
}
