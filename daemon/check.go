package daemon

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/daemon/certificate"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy/visitor/users"
)

// Check finds out whether the calling thread could serve with c, and changes nothing. The error is
// what would make a daemon refuse c, such as a certificate that cannot be read. The problems are what
// it would serve without: logins of a file that cannot be read, or the cache.
func Check(c *config.Config, version string) ([]*problem.Problem, error) {
	p, err := newProxy(c, c.Listen, proxyParts{version: version})
	if err != nil {
		return nil, err
	}
	defer p.Close()
	var list []*problem.Problem
	for i, source := range p.logins.sources {
		err := source.Fault()
		if err == nil || i == 0 && errors.Is(err, fs.ErrNotExist) { // before the first login there is no store
			continue
		}
		for _, each := range problem.Split(err) {
			list = append(list, sourceProblem(each))
		}
	}
	if p := checkCache(c.Cache.Dir); p != nil {
		list = append(list, p)
	}
	if file := c.Site.ACMECA; file != "" {
		if p := certificate.CheckCA(file); p != nil {
			list = append(list, p)
		}
	}
	if p := checkShared(c); p != nil {
		list = append(list, p)
	}
	if s := c.Site; s.Cert != "" {
		if p := certificate.Check(s.Cert, s.Key, c.SiteNames()); p != nil {
			list = append(list, p)
		}
	}
	if file := c.Site.Users; file != "" {
		if p := users.CheckFile(file); p != nil {
			list = append(list, p)
		}
	}
	return list, nil
}

// sourceProblem returns a problem of a source of logins: its own, such as a helper that is not
// installed, or that its file cannot be read.
func sourceProblem(err error) *problem.Problem {
	if p, ok := errors.AsType[*problem.Problem](err); ok && p.Hint != "" {
		return p
	}
	return &problem.Problem{
		Code: "credentials-unreadable", Text: "pulls go without the logins of a file", Err: err,
		Hint: "correct the file, or pass it to the service: see LoadCredential= in sidemirror.service",
	}
}

// checkShared returns a problem if a file that [cache.shared] names cannot be used. It asks no server.
func checkShared(c *config.Config) *problem.Problem {
	store, missing := openShared(c, outbound{}, nil)
	if store == nil {
		return missing
	}
	defer store.Close()
	return store.CheckCredentials()
}

// checkCache returns a problem if a cache could not be in a folder, which need not exist yet.
func checkCache(dir string) *problem.Problem {
	if dir == "" {
		return nil
	}
	at := filepath.Clean(dir)
	err := unix.Access(at, unix.W_OK|unix.X_OK)
	for errors.Is(err, unix.ENOENT) && at != "/" {
		at = filepath.Dir(at)
		err = unix.Access(at, unix.W_OK|unix.X_OK)
	}
	if info, statErr := os.Stat(at); err == nil && statErr == nil && !info.IsDir() {
		return &problem.Problem{
			Code: "cache-unwritable", Path: dir, Text: "nothing is stored", Err: &os.PathError{Op: "writing in", Path: at, Err: unix.ENOTDIR},
			Hint: "name a folder in cache.dir",
		}
	}
	if err == nil {
		return nil
	}
	return &problem.Problem{
		Code: "cache-unwritable", Path: dir, Text: "nothing is stored", Err: &os.PathError{Op: "writing in", Path: at, Err: err},
		Hint: "let the user that sidemirror runs as write there, and add ReadWritePaths=" + dir + " with \"systemctl edit sidemirror.service\"",
	}
}
