package cache

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/extent"
)

// load opens the files and reads the list.
func (p *Partial) load() error {
	file, err := p.dir.openFile(p.name+partialData, os.O_RDWR)
	if errors.Is(err, fs.ErrPermission) { // of an untrusted caller: mode 0400, to a process that is not root
		file, err = p.reopenWritable()
	}
	if err != nil {
		return err
	}
	p.file = file
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	b, err := p.dir.readList(p.name)
	if err == nil {
		p.Size, p.present, err = parseList(b, bootID())
	}
	if err != nil {
		p.remove()
		return errors.Join(fs.ErrNotExist, err)
	}
	p.present.Remove(extent.Extent{Start: info.Size(), End: max(p.Size, info.Size()) + 1})
	p.listed, p.untrusted = true, isUntrusted(info)
	p.reserved = p.present.Clone()
	now, err := p.dir.stat(p.name + partialData)
	if err != nil {
		return err
	}
	p.room = p.dir.resume(p.name+partialData, now.allocated, p.untrusted)
	return nil
}

// reopenWritable opens the data of an untrusted caller, whose mode marks it and does not protect it.
func (p *Partial) reopenWritable() (*os.File, error) {
	if err := p.dir.root.Chmod(p.name+partialData, fileMode); err != nil {
		return nil, err
	}
	file, err := p.dir.openFile(p.name+partialData, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	return file, file.Chmod(untrustedMode)
}

func (d *Dir) readList(name string) ([]byte, error) {
	f, err := d.open(name + partialList)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxListSize+1))
	if err == nil && len(b) > maxListSize {
		err = errBadList
	}
	return b, err
}

// create makes the data's file. The list is made when there is something to claim: a small blob needs
// none.
func (p *Partial) create() error {
	var err error
	if p.room, err = p.dir.reserve(context.Background(), 0, p.untrusted); err != nil {
		return err
	}
	if p.file, err = p.dir.createPartial(p.name+partialData, os.O_RDWR); err != nil {
		return err
	}
	if err := unix.Flock(int(p.file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	// A process that was killed while it removed both may have left a list. It must not claim
	// anything of the new data.
	if err := ignoreMissing(p.dir.root.Remove(p.name + partialList)); err != nil {
		p.remove()
		return err
	}
	if p.untrusted {
		return p.file.Chmod(untrustedMode)
	}
	return nil
}

func (p *Partial) remove() {
	_ = p.dir.root.Remove(p.name + partialList)
	_ = p.dir.root.Remove(p.name + partialData)
}

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
