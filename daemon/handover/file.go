package handover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/internal/durable"
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

func encode(h Handover) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	d := document{Version: version, Registries: h.Registries}
	if p := h.Proxy; p != nil {
		d.Proxy = &proxyDocument{HTTP: p.HTTP.Reveal(), HTTPS: p.HTTPS.Reveal(), NoProxy: p.NoProxy, From: p.From}
	}
	data, err := json.Marshal(d)
	if err == nil && len(data) > maxSize {
		err = fmt.Errorf("it would be longer than %d KiB", maxSize>>10)
	}
	return data, err
}

// decode reads what encode has written. Its errors do not quote the data, which may have a password.
func decode(data []byte) (Handover, error) {
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
	if err := h.check(); err != nil {
		return Handover{}, err
	}
	return h, nil
}

// Read returns what was handed over in a file; nothing if there is no file. Only root, or the user
// that this process runs as, may have written it, and no other user may write it.
func Read(file string) (Handover, error) {
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Handover{}, nil
	}
	if err != nil {
		return Handover{}, fmt.Errorf("reading what the watching service handed over: %w", err)
	}
	defer f.Close()
	h, err := read(f)
	if err != nil {
		return Handover{}, fmt.Errorf("reading what the watching service handed over: %s: %w", file, err)
	}
	return h, nil
}

func read(f *os.File) (Handover, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return Handover{}, err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return Handover{}, errors.New("it is not a file")
	case st.Uid != 0 && st.Uid != uint32(os.Geteuid()):
		return Handover{}, fmt.Errorf("it belongs to user %d", st.Uid)
	case st.Mode&0o022 != 0:
		return Handover{}, errors.New("other users may write it")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	switch {
	case err != nil:
		return Handover{}, err
	case len(data) > maxSize:
		return Handover{}, fmt.Errorf("it is longer than %d KiB", maxSize>>10)
	}
	return decode(data)
}

// Write makes h what is handed over in folder, which must exist. The file is for root and the
// folder's group. If it says so already, it stays as it is.
func Write(folder string, h Handover) error {
	data, err := encode(h)
	if err == nil {
		err = put(folder, name, data)
	}
	if err != nil {
		return fmt.Errorf("handing over to the proxy what the engines are configured with: %w", err)
	}
	return nil
}

// put replaces a file of folder if it does not contain data.
func put(folder, file string, data []byte) error {
	dir, err := open(folder)
	if err != nil {
		return err
	}
	defer dir.Close()
	if now, err := contents(dir, file); err == nil && bytes.Equal(now, data) {
		return nil
	}
	return durable.Replace(dir, file, data, durable.Options{Prepare: func(f *os.File) error { return f.Chmod(0o640) }})
}

func open(folder string) (*os.File, error) {
	return os.OpenFile(folder, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
}

// contents returns a file of dir that this package may have written.
func contents(dir *os.File, file string) ([]byte, error) {
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

// Remove hands over nothing any more.
func Remove(folder string) error {
	dir, err := open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing what was handed over to the proxy: %w", err)
	}
	defer dir.Close()
	if err := durable.Remove(dir, name, durable.Options{}); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing what was handed over to the proxy: %w", err)
	}
	return nil
}
