package sdnotify

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/godbus/dbus/v5"
)

// Environment returns what systemd gives the processes of a service, as it has it in force: the
// assignments of its own environment and then of the unit's Environment=; the EnvironmentFile= paths,
// which may be patterns, with "-" before those that may be missing; and what UnsetEnvironment= lists,
// which counts after both. All are empty if there is no such unit.
func (u Units) Environment(ctx context.Context, unit string) (set, files, unset []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, queryLimit)
	defer cancel()
	failed := func(err error) ([]string, []string, []string, error) {
		return nil, nil, nil, fmt.Errorf("asking systemd about the environment of %s: %w", unit, err)
	}
	c, err := u.connect(ctx)
	if err != nil {
		return failed(err)
	}
	defer c.Close()
	load, err := c.GetUnitPropertyContext(ctx, unit, "LoadState")
	if err != nil {
		return failed(err)
	}
	if load.Value.Value() != "loaded" {
		return nil, nil, nil, nil
	}
	text, err := c.GetManagerProperty("Environment")
	if err != nil {
		return failed(err)
	}
	manager, err := dbus.ParseVariant(text, dbus.SignatureOf([]string{}))
	if err != nil {
		return failed(errors.New("its own environment cannot be read")) // err may quote a password
	}
	set, _ = manager.Value().([]string)
	for _, list := range []struct {
		name string
		add  func(any)
	}{
		{"Environment", func(v any) {
			of, _ := v.([]string)
			set = slices.Concat(set, of)
		}},
		{"EnvironmentFiles", func(v any) { files = environmentFiles(v) }},
		{"UnsetEnvironment", func(v any) { unset, _ = v.([]string) }},
	} {
		p, err := c.GetUnitTypePropertyContext(ctx, unit, "Service", list.name)
		if err != nil {
			return failed(err)
		}
		list.add(p.Value.Value())
	}
	return set, files, unset, nil
}

// environmentFiles reads an a(sb): the path, and whether the file may be missing.
func environmentFiles(value any) (files []string) {
	list, _ := value.([][]any)
	for _, item := range list {
		if len(item) < 2 {
			continue
		}
		name, _ := item[0].(string)
		if optional, _ := item[1].(bool); optional {
			name = "-" + name
		}
		files = append(files, name)
	}
	return files
}
