package certsd

import (
	"path"
	"strings"
	"unicode/utf8"

	"github.com/sidemirror/sidemirror/hostconfig/hostfs"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Certificates returns what the *.crt, *.cert and *.key files of a folder mean (containerd,
// loadCertFiles). A hosts.toml next to them switches them off unless it names them. The names stay
// relative to the folder, as containerd takes them.
func Certificates(tree *hostfs.Host, folder string) (ca []string, clients [][]string, err error) {
	list, err := tree.Names(folder)
	if err != nil {
		return nil, nil, err
	}
	has := make(map[string]bool)
	for _, item := range list {
		has[item.Name()] = !item.IsDir()
	}
	for _, item := range list {
		name := item.Name()
		if !has[name] || !strings.HasSuffix(name, ".crt") && !strings.HasSuffix(name, ".cert") {
			continue
		}
		at := path.Join(folder, name)
		if !utf8.ValidString(name) {
			return nil, nil, &problem.Problem{Code: "certificate-name", Path: at, Text: "its name is not UTF-8, and no hosts.toml can hold it", Hint: "rename it"}
		}
		if !tree.IsFile(at) {
			return nil, nil, &problem.Problem{
				Code: "certificate-unusable", Path: at, Text: "is not a file: named in a hosts.toml it would make every pull fail",
				Hint: "replace or remove it",
			}
		}
		if strings.HasSuffix(name, ".crt") {
			ca = append(ca, name)
			continue
		}
		pair := []string{name}
		if key := strings.TrimSuffix(name, ".cert") + ".key"; has[key] {
			pair = append(pair, key)
		}
		clients = append(clients, pair)
	}
	return ca, clients, nil
}
