package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

const (
	enginesName = "engines.json"

	// maxEngines bounds how many engines are read. A host has fewer than ten.
	maxEngines = 64

	maxEngineName = 64
)

// Engine is an engine of the host, for the page.
type Engine struct {
	// Name is what the command line calls it: "docker". Home is the distribution that brought it, as
	// "k3s"; empty if it is the host's own.
	Name string `json:"engine"`
	Home string `json:"home,omitempty"`

	// Mirror says whether its pulls go through sidemirror: "active", "partial", "inactive" or
	// "unknown".
	Mirror string `json:"mirror"`

	// HubOnly says that of all registries it can use a mirror for Docker Hub alone.
	HubOnly bool `json:"hub_only,omitempty"`

	// Repairs is how often the watching service, since it runs, has put sidemirror's entry back into
	// files that other programs had changed. Of several engines of a name, the first has all.
	Repairs int64 `json:"repairs,omitempty"`
}

// enginesDocument is the file.
type enginesDocument struct {
	Version int      `json:"version"`
	Engines []Engine `json:"engines"`
}

// WriteEngines makes engines those that [ReadEngines] returns. It does nothing if there is no folder,
// as where the packages are not installed.
func WriteEngines(folder string, engines []Engine) error {
	data, err := json.Marshal(enginesDocument{version, engines})
	if err == nil {
		err = in(folder, func(dir *os.File) error { return put(dir, enginesName, data) })
	}
	if err != nil {
		return fmt.Errorf("writing which engines there are: %w", err)
	}
	return nil
}

// RemoveEngines makes the engines unknown.
func RemoveEngines(folder string) error {
	if err := in(folder, func(dir *os.File) error { return remove(dir, enginesName) }); err != nil {
		return fmt.Errorf("removing which engines there are: %w", err)
	}
	return nil
}

// in calls work with the folder, if there is one.
func in(folder string, work func(*os.File) error) error {
	dir, err := open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	return work(dir)
}

// ReadEngines returns the engines that the watching service has found. The error is
// [fs.ErrNotExist] if it does not run. Who may have written the file is as for [Read].
func ReadEngines(folder string) ([]Engine, error) {
	f, err := os.OpenFile(filepath.Join(folder, enginesName), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("reading which engines there are: %w", err)
	}
	defer f.Close()
	data, err := read(f)
	var engines []Engine
	if err == nil {
		engines, err = decodeEngines(data)
	}
	if err != nil {
		return nil, fmt.Errorf("reading which engines there are: %s: %w", f.Name(), err)
	}
	return engines, nil
}

func decodeEngines(data []byte) ([]Engine, error) {
	var d enginesDocument
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, errors.New("it is not the JSON that the watching service writes")
	}
	if d.Version != version {
		return nil, fmt.Errorf("it has version %d, and this sidemirror reads version %d", d.Version, version)
	}
	if len(d.Engines) > maxEngines {
		return nil, fmt.Errorf("it has more than %d engines", maxEngines)
	}
	for _, e := range d.Engines {
		if e.Name == "" || len(e.Name)+len(e.Home) > maxEngineName {
			return nil, errors.New("it has an engine without a name, or with one that is too long")
		}
		if e.Repairs < 0 {
			return nil, errors.New("it has a number of repairs below zero")
		}
	}
	return d.Engines, nil
}
