package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/sidemirror/sidemirror/daemon/admin"
	"github.com/sidemirror/sidemirror/daemon/config"
	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/daemon/web"
	"github.com/sidemirror/sidemirror/internal/problem"
	"github.com/sidemirror/sidemirror/proxy"
	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/observe"
	"github.com/sidemirror/sidemirror/proxy/peer"
	"github.com/sidemirror/sidemirror/proxy/transfer"
	"github.com/sidemirror/sidemirror/proxy/visitor"
)

// caches are the cache folders that are open: the one in force and, after a reload with another
// cache.dir, those that requests still use.
type caches struct {
	access   proxy.AccessLog // of the services that it makes
	observer observe.Observer
	tracer   observe.Tracer                 // nil: no request is followed
	notices  func(registry string) []string // for the person who pulls
	live     func() web.Live                // what the page shows
	refused  peer.Refusals                  // by any of them
	visitors *visitor.Site                  // nil: none is admitted

	mu   sync.Mutex
	open []*cacheFolder
	// The folder in force, or why there is none.
	inForce *cacheFolder
	most    int64 // that the folder in force may store
	missing *problem.Problem
}

type cacheFolder struct {
	*cache.Dir
	transfers *transfer.Transfers

	path  string
	id    os.FileInfo
	users int // under caches.mu

	maintain    func() // starts the maintenance, which must not delay readiness
	stop        context.CancelFunc
	maintaining sync.WaitGroup
}

// newService makes the proxy that c describes, with its cache. If the folder cannot be opened, the
// proxy serves without one: a pull is never worse because of sidemirror.
func (s *caches) newService(c *config.Config, found handover.Handover, at []netip.AddrPort, version string, log *logrus.Logger) (service, error) {
	var f *cacheFolder
	var missing *problem.Problem
	if c.Cache.Dir != "" {
		var err error
		if f, err = s.acquire(c, log); err != nil {
			missing = &problem.Problem{Code: "cache-missing", Text: "nothing is stored", Err: err, Hint: cacheHint}
			log.WithError(err).WithField("hint", cacheHint).Error("nothing is stored, and every pull goes to the registry, until the cache folder is repaired and the configuration reloaded")
		} else if err := f.writable(); err != nil {
			log.WithError(err).Error("stored content is served, but nothing is added until the cache folder is repaired")
		}
	}
	svc, err := f.serve(s, c, found, at, version, log)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inForce, s.missing, s.most = f, missing, int64(c.Cache.MaxSize)
	return svc, nil
}

// serve makes a proxy that stores content in f, or nowhere if f is nil.
func (f *cacheFolder) serve(s *caches, c *config.Config, found handover.Handover, at []netip.AddrPort, version string, log *logrus.Logger) (service, error) {
	parts := proxyParts{
		version: version, log: log, access: s.access, observer: s.observer, tracer: s.tracer, found: found, live: s.live, notices: s.notices,
		visitors: s.visitors,
		trust:    peer.NewTrust(c.Trust.UIDs, c.Trust.Units, &s.refused),
	}
	if f == nil {
		p, err := newProxy(c, at, parts)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	parts.store, parts.transfers = f.Dir, f.transfers
	p, err := newProxy(c, at, parts)
	if err != nil {
		s.release(f)
		return nil, err
	}
	f.SetLimits(cacheLimits(c))
	return &cachingProxy{registryProxy: p, folder: f, release: func() { s.release(f) }}, nil
}

func cacheLimits(c *config.Config) cache.Limits {
	return cache.Limits{
		MaxSize:      int64(c.Cache.MaxSize),
		MinFree:      int64(c.Cache.MinFree.Bytes),
		MinFreeShare: c.Cache.MinFree.Percent / 100,
		MaxAge:       c.Cache.MaxStale,
	}
}

// acquire opens c's cache, or returns the one that is open. Two caches in one folder, by whatever
// path, would remove each other's unfinished files. A folder that was removed, or that another one
// is mounted over, is no longer the one at its path.
func (s *caches) acquire(c *config.Config, log *logrus.Logger) (*cacheFolder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Clean(c.Cache.Dir)
	if id, err := os.Stat(path); err == nil {
		i := slices.IndexFunc(s.open, func(f *cacheFolder) bool { return os.SameFile(f.id, id) })
		if i >= 0 {
			s.open[i].users++
			return s.open[i], nil
		}
	}
	dir, err := cache.Open(path, cacheLimits(c))
	if err != nil {
		return nil, fmt.Errorf("opening the cache %s: %w", path, err)
	}
	id, err := os.Stat(path)
	if err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("opening the cache %s: %w", path, err)
	}
	if err := dir.Clear(); err != nil {
		// They take space, and nothing reads them.
		log.WithError(err).WithField("dir", path).Warn("the cache's unfinished files cannot be removed")
	}
	f := newCacheFolder(dir, path, id, log, s.observer)
	s.open = append(s.open, f)
	return f, nil
}

func newCacheFolder(dir *cache.Dir, path string, id os.FileInfo, log *logrus.Logger, observer observe.Observer) *cacheFolder {
	ctx, stop := context.WithCancel(context.Background())
	f := &cacheFolder{Dir: dir, transfers: transfer.New(dir), path: path, id: id, users: 1, stop: stop}
	f.maintain = sync.OnceFunc(func() {
		f.maintaining.Go(func() {
			dir.Keep(ctx, func(freed int64, files int, err error) {
				at := log.WithField("dir", path)
				if files > 0 {
					if observer != nil {
						observer.Evicted(freed, files)
					}
					at.WithFields(logrus.Fields{"bytes": freed, "files": files}).Info("removed the content that was used longest ago")
				}
				if err != nil {
					at.WithError(err).Warn("the cache cannot be reduced to its limits")
				}
			})
		})
	})
	return f
}

// writable returns why nothing can be added. A read-only file system opens like any other.
func (f *cacheFolder) writable() error {
	if err := unix.Access(f.path, unix.W_OK|unix.X_OK); err != nil {
		return &os.PathError{Op: "writing in", Path: f.path, Err: err}
	}
	return nil
}

// release closes a folder, and ends its transfers, when its last user has released it.
func (s *caches) release(f *cacheFolder) {
	s.mu.Lock()
	f.users--
	last := f.users == 0
	if last {
		s.open = slices.DeleteFunc(s.open, func(other *cacheFolder) bool { return other == f })
	}
	s.mu.Unlock()
	if !last {
		return
	}
	f.stop()
	f.maintaining.Wait()
	f.transfers.Close()
	_ = f.Close() // complete content is on disk
}

// status returns what is known of the cache in force; nil if nothing is stored.
func (s *caches) status() *admin.Cache {
	s.mu.Lock()
	folder := s.inForce
	s.mu.Unlock()
	if folder == nil {
		return nil
	}
	c := &admin.Cache{Dir: folder.path, MaxSize: folder.MaxSize()}
	if n, known := s.used(); known {
		c.Bytes = &n
	}
	return c
}

// used returns how many bytes the cache in force stores, if that is known.
func (s *caches) used() (n int64, known bool) {
	s.mu.Lock()
	folder := s.inForce
	s.mu.Unlock()
	if folder == nil {
		return 0, false
	}
	return folder.Used(), folder.Counted()
}

// cacheHint says what to do if there is no cache folder.
const cacheHint = "let the user that sidemirror runs as write there, or set cache.dir"

// problem returns what is wrong with the folder in force; nil if nothing is. That may change at any
// time: a file system becomes read-only after an error of its disk.
func (s *caches) problem() *problem.Problem {
	s.mu.Lock()
	folder, missing := s.inForce, s.missing
	s.mu.Unlock()
	if missing == nil && folder != nil {
		if err := folder.writable(); err != nil {
			return &problem.Problem{
				Code: "cache-read-only", Text: "nothing new is stored", Err: err,
				Hint: "let the user that sidemirror runs as write there, and look for errors of the disk: dmesg",
			}
		}
		if folder.Full() {
			return &problem.Problem{
				Code: "cache-disk-full", Path: folder.path, Text: "nothing new is stored: the disk has less room available than cache.min_free, without what is stored here",
				Hint: "make room on the disk: df -h " + folder.path + "; or set cache.dir or cache.min_free",
			}
		}
	}
	return missing
}

// cachingProxy is a proxy and the cache folder that it uses.
type cachingProxy struct {
	*registryProxy
	folder  *cacheFolder
	release func()
}

// Probe is called when the daemon is ready. The cache must not be counted earlier.
func (p *cachingProxy) Probe(ctx context.Context) {
	p.folder.maintain()
	p.registryProxy.Probe(ctx)
}

// Close closes the proxy, and the folder if no other proxy uses it.
func (p *cachingProxy) Close() {
	p.registryProxy.Close()
	p.release()
}
