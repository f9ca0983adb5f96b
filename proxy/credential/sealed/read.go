package sealed

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

// readFile reads a regular file in folder.
func readFile(folder *os.File, name string) (credential.Secret, error) {
	fd, err := unix.Openat(int(folder.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return credential.Secret{}, fmt.Errorf("it cannot be opened: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return credential.Secret{}, err
	}
	if !info.Mode().IsRegular() {
		return credential.Secret{}, errors.New("it is not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return credential.Secret{}, err
	}
	if len(data) > maxFile {
		return credential.Secret{}, fmt.Errorf("it is longer than %d KiB", maxFile>>10)
	}
	return credential.NewSecret(string(data)), nil
}
