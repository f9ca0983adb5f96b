package handover

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
	"github.com/sidemirror/sidemirror/internal/lazyregexp"
	"github.com/sidemirror/sidemirror/internal/secret"
)

const (
	// version changes when an older reader would misunderstand the file.
	version = 1

	// maxSize bounds the file, for the writer and for the reader.
	maxSize = 1 << 20
)

// document is the file.
type document struct {
	Version    int                 `json:"version"`
	Registries map[string]Registry `json:"registries,omitempty"`
	Proxy      *proxyDocument      `json:"proxy,omitempty"`
}

// proxyDocument is a Proxy with its secrets revealed, since a Secret is never marshalled.
type proxyDocument struct {
	HTTP    string `json:"http,omitempty"`
	HTTPS   string `json:"https,omitempty"`
	NoProxy string `json:"no_proxy,omitempty"`
	From    string `json:"from"`
}

// copyName is how a copy is named: after the hash of its contents.
var copyName = lazyregexp.New(`^[0-9a-f]{32}\.pem$`)

func nameOf(contents secret.Secret) string {
	sum := sha256.Sum256([]byte(contents.Reveal()))
	return hex.EncodeToString(sum[:16]) + ".pem"
}

// encode returns h as JSON, in which the files are called by names.
func encode(h Handover, names map[string]string) ([]byte, error) {
	known := func(file string) bool { return names[file] != "" }
	if err := h.check(known); err != nil {
		return nil, err
	}
	d := document{Version: version, Registries: make(map[string]Registry, len(h.Registries))}
	for host, r := range h.Registries {
		d.Registries[host] = r.renamed(func(file string) string { return names[file] })
	}
	if p := h.Proxy; p != nil {
		d.Proxy = &proxyDocument{HTTP: p.HTTP.Reveal(), HTTPS: p.HTTPS.Reveal(), NoProxy: p.NoProxy, From: p.From}
	}
	data, err := json.Marshal(d)
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("it would be longer than %d KiB", maxSize>>10)
	}
	return data, err
}

// decode reads what encode has written, for files in folder. Its errors do not quote the data, which
// may have a password.
func decode(folder string, data []byte) (Handover, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		return Handover{}, errors.New("it is not the JSON that the watching service writes")
	}
	if d.Version != version {
		return Handover{}, fmt.Errorf("it has version %d, and this sidemirror reads version %d", d.Version, version)
	}
	h := Handover{Registries: d.Registries}
	if p := d.Proxy; p != nil {
		h.Proxy = &Proxy{HTTP: secret.New(p.HTTP), HTTPS: secret.New(p.HTTPS), NoProxy: p.NoProxy, From: p.From}
	}
	if err := h.check(copyName().MatchString); err != nil {
		return Handover{}, err
	}
	for host, r := range h.Registries {
		h.Registries[host] = r.renamed(func(file string) string { return filepath.Join(folder, file) })
	}
	return h, nil
}

// Read returns what was handed over in a folder; nothing if there is no file. Only root, or the user
// that this process runs as, may have written it, and no other user may write it. The files that the
// registries name are the copies in the folder.
func Read(folder string) (Handover, error) {
	file := Path(folder)
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Handover{}, nil
	}
	if err != nil {
		return Handover{}, fmt.Errorf("reading what the watching service handed over: %w", err)
	}
	defer f.Close()
	data, err := read(f)
	var h Handover
	if err == nil {
		h, err = decode(folder, data)
	}
	if err != nil {
		return Handover{}, fmt.Errorf("reading what the watching service handed over: %s: %w", file, err)
	}
	return h, nil
}

func read(f *os.File) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("it is not a file")
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return nil, fmt.Errorf("it belongs to user %d", st.Uid)
	case st.Mode&0o022 != 0:
		return nil, errors.New("other users may write it")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("it is longer than %d KiB", maxSize>>10)
	}
	return data, err
}

// Write makes h what is handed over in folder. The file and the copies are for root and the folder's
// group. contents has what the files contain that the registries name. What is there already stays as
// it is. The folder is made if it is missing and there is something to hand over.
func Write(folder string, h Handover, contents map[string]secret.Secret) error {
	if err := write(folder, h, contents); err != nil {
		return fmt.Errorf("handing over to the proxy how the engines are configured: %w", err)
	}
	return nil
}

func write(folder string, h Handover, contents map[string]secret.Secret) error {
	names, used := make(map[string]string), map[string]secret.Secret{}
	for _, r := range h.Registries {
		for _, file := range r.files() {
			if data, ok := contents[file]; ok {
				names[file] = nameOf(data)
				used[names[file]] = data
			}
		}
	}
	data, err := encode(h, names)
	if err != nil {
		return err
	}
	empty := len(h.Registries) == 0 && h.Proxy == nil
	dir, err := open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		if empty {
			return nil
		}
		if err := os.Mkdir(folder, 0o755); err != nil {
			return err
		}
		dir, err = open(folder)
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	for file, data := range used {
		if err := put(dir, file, []byte(data.Reveal())); err != nil {
			return err
		}
	}
	if empty {
		err = remove(dir, name)
	} else {
		err = put(dir, name, data)
	}
	if err != nil {
		return err
	}
	return removeCopies(dir, used)
}

// put replaces a file of dir if it does not contain data.
func put(dir *os.File, file string, data []byte) error {
	if now, err := contentsOf(dir, file); err == nil && bytes.Equal(now, data) {
		return nil
	}
	return durable.Replace(dir, file, data, durable.Options{Prepare: func(f *os.File) error { return f.Chmod(0o640) }})
}

func open(folder string) (*os.File, error) {
	return os.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
}

// contentsOf returns a file of dir that this package may have written.
func contentsOf(dir *os.File, file string) ([]byte, error) {
	fd, err := unix.Openat(int(dir.Fd()), file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode() != 0o640 {
		return nil, fs.ErrNotExist
	}
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

// removeCopies removes the copies that are not used any more.
func removeCopies(dir *os.File, used map[string]secret.Secret) error {
	list, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, file := range list {
		if _, ok := used[file]; ok || !copyName().MatchString(file) {
			continue
		}
		if err := remove(dir, file); err != nil {
			return err
		}
	}
	return nil
}

func remove(dir *os.File, file string) error {
	if err := durable.Remove(dir, file, durable.Options{}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Remove hands over nothing any more. The folder stays.
func Remove(folder string) error {
	return errors.Join(Write(folder, Handover{}, nil), RemoveEngines(folder))
}
