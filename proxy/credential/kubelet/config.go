package kubelet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/credential/program"
)

const (
	maxConfig    = 1 << 20 // bytes of a configuration file
	maxFiles     = 64      // of a folder
	maxProviders = 64
)

// configuration is the kubelet's CredentialProviderConfig.
type configuration struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Providers  []provider `json:"providers"`
}

// provider is one plugin. See kubelet.config.k8s.io/v1, CredentialProvider.
type provider struct {
	Name                 string         `json:"name"`
	MatchImages          []string       `json:"matchImages"`
	DefaultCacheDuration *duration      `json:"defaultCacheDuration"`
	APIVersion           string         `json:"apiVersion"`
	Args                 []string       `json:"args"`
	Env                  []variable     `json:"env"`
	TokenAttributes      map[string]any `json:"tokenAttributes"`
}

type variable struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// duration is a metav1.Duration: a text such as "12h".
type duration struct{ time.Duration }

// UnmarshalJSON reads the text.
func (d *duration) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	parsed, err := time.ParseDuration(text)
	if err != nil || len(text) == len(data) {
		return errors.New("a duration is not a text such as \"12h\"")
	}
	d.Duration = parsed
	return nil
}

var (
	configVersions = []string{"kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"}
	pluginVersions = []string{"credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1beta1", "credentialprovider.kubelet.k8s.io/v1alpha1"}
)

// load reads the configuration at path, a file or a folder of them, and returns its providers in
// their order. Those that need a pod's service account token are returned in skipped.
func load(path string) (providers []provider, skipped []string, err error) {
	files, err := configFiles(path)
	if err != nil {
		return nil, nil, invalid(path, err)
	}
	names := map[string]bool{}
	for _, file := range files {
		c, err := readConfig(file)
		if err != nil {
			return nil, nil, invalid(file, err)
		}
		for _, p := range c.Providers {
			switch err := p.check(); {
			case err != nil:
				return nil, nil, invalid(file, fmt.Errorf("provider %q: %w", p.Name, err))
			case names[p.Name]:
				return nil, nil, invalid(file, fmt.Errorf("provider %q is there twice", p.Name))
			case len(names) == maxProviders:
				return nil, nil, invalid(file, fmt.Errorf("there are more than %d providers", maxProviders))
			}
			names[p.Name] = true
			if p.TokenAttributes != nil {
				skipped = append(skipped, p.Name)
				continue
			}
			providers = append(providers, p)
		}
	}
	return providers, skipped, nil
}

func invalid(path string, err error) error {
	return &problem.Problem{Code: "plugins-unusable", Path: path, Text: "the plugins that it configures are not used", Err: err, Hint: problem.Hint(err)}
}

// configFiles returns path, or if it is a folder the files in it that the kubelet reads.
func configFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	found, err := os.ReadDir(path) // in lexical order
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range found {
		if slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(e.Name())) && !e.IsDir() {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, errors.New("the folder has no file that ends in .json, .yaml or .yml")
	}
	if len(files) > maxFiles {
		return nil, fmt.Errorf("the folder has more than %d files", maxFiles)
	}
	return files, nil
}

// readConfig reads one file. It names programs to run, so only root and the daemon's user may write
// to it.
func readConfig(path string) (*configuration, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := program.CheckOwner(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("it is longer than %d bytes", maxConfig)
	}
	var c configuration
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return nil, err
	}
	if c.Kind != "CredentialProviderConfig" || !slices.Contains(configVersions, c.APIVersion) {
		return nil, fmt.Errorf("it is not a CredentialProviderConfig of %s", strings.Join(configVersions, ", "))
	}
	if len(c.Providers) == 0 {
		return nil, errors.New("it has no providers")
	}
	return &c, nil
}

// check returns what the kubelet would refuse.
func (p *provider) check() error {
	switch {
	case p.Name == "":
		return errors.New("it has no name")
	case !program.ValidName(p.Name):
		return errors.New("the name is not one of a program")
	case p.DefaultCacheDuration == nil:
		return errors.New("defaultCacheDuration is missing")
	case p.DefaultCacheDuration.Duration < 0:
		return errors.New("defaultCacheDuration is negative")
	case !slices.Contains(pluginVersions, p.APIVersion):
		return fmt.Errorf("apiVersion is not one of %s", strings.Join(pluginVersions, ", "))
	case len(p.MatchImages) == 0:
		return errors.New("matchImages is empty")
	}
	for _, pattern := range p.MatchImages {
		if _, err := parseGlob(pattern); err != nil {
			return fmt.Errorf("matchImages: %w", err)
		}
	}
	return nil
}
