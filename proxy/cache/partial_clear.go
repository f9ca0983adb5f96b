package cache

import "strings"

// Clear removes what earlier processes left in the folder of partial files and no process can use.
// Only the process that serves may call it, before it serves.
func (d *Dir) Clear() error {
	names, err := d.partialNames()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	for _, name := range names {
		base, isData := strings.CutSuffix(name, partialData)
		if isData && there[base+partialList] && d.usable("partial/"+base) {
			continue
		}
		if base, isList := strings.CutSuffix(name, partialList); isList && there[base+partialData] {
			continue // it goes or stays with its data
		}
		_ = ignoreMissing(d.root.Remove("partial/" + base + partialList))
		if err := d.root.Remove("partial/" + name); ignoreMissing(err) != nil {
			return err
		}
	}
	return nil
}

// usable reports whether anything is present in the partial blob of that name.
func (d *Dir) usable(name string) bool {
	b, err := d.readList(name)
	if err != nil {
		return false
	}
	_, present, err := parseList(b, bootID())
	return err == nil && present.Count() > 0
}

func (d *Dir) partialNames() ([]string, error) {
	folder, err := d.root.Open("partial")
	if err != nil {
		return nil, ignoreMissing(err)
	}
	defer folder.Close()
	return folder.Readdirnames(-1)
}
