package cache

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	maxRecord  = 64 << 10 // bytes of a record
	maxAnswer  = 8 << 20  // bytes of a list kept
	maxAnswers = 8        // meanings of one tag: one for each kind of manifest asked for
)

// Repository is a repository of a registry, by the names that references use. Both
// must have been checked against their grammars: they become folders.
type Repository struct{ Registry, Name string }

func (r Repository) folder() string { return path.Join("repositories", r.Registry, r.Name) }

// Meaning is what a tag meant when its upstream was last asked.
type Meaning struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"`
	Upstream  string        `json:"upstream"` // who said so
	Seen      time.Time     `json:"seen"`
}

// Tag gives what is known of a tag: the same name may mean an index to one client
// and a single manifest to another. The latest comes first; nil if nothing is known.
func (d *Dir) Tag(r Repository, tag string) []Meaning {
	var all []Meaning
	if err := d.readRecord(tagPath(r, tag), &all); err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(m Meaning) bool { return m.Digest.Validate() != nil })
}

// SetTag notes what a tag means. It replaces what the tag meant as the same media
// type before.
func (d *Dir) SetTag(r Repository, tag string, m Meaning) error {
	all := slices.DeleteFunc(d.Tag(r, tag), func(old Meaning) bool { return old.MediaType == m.MediaType })
	all = slices.Insert(all, 0, m)
	return d.writeRecord(tagPath(r, tag), all[:min(len(all), maxAnswers)])
}

func tagPath(r Repository, tag string) string { return path.Join(r.folder(), "_tags", tag) }

// Holding is what a repository is known to hold.
type Holding struct {
	MediaType string `json:"mediaType,omitempty"` // of a manifest, as its upstream gave it
	Upstream  string `json:"upstream,omitempty"`
}

// BlobHolder gives the upstream that last said that the repository holds the blob;
// empty if none has.
func (d *Dir) BlobHolder(r Repository, dgst digest.Digest) string {
	var h Holding
	if d.readRecord(holdingPath(r, "_blobs", dgst), &h) != nil {
		return ""
	}
	return h.Upstream
}

// HoldsBlob reports whether an upstream has said that the repository holds the blob.
func (d *Dir) HoldsBlob(r Repository, dgst digest.Digest) bool {
	info, err := d.root.Stat(holdingPath(r, "_blobs", dgst))
	return err == nil && info.Size() > 0
}

// HoldBlob notes that the repository holds the blob.
func (d *Dir) HoldBlob(r Repository, dgst digest.Digest, h Holding) error {
	if d.HoldsBlob(r, dgst) && d.BlobHolder(r, dgst) == h.Upstream {
		return nil
	}
	return d.writeRecord(holdingPath(r, "_blobs", dgst), h)
}

func holdingPath(r Repository, kind string, dgst digest.Digest) string {
	return path.Join(r.folder(), kind, dgst.Algorithm().String(), dgst.Encoded())
}

// Granted gives when the repository's upstream last let who have something, for the
// time that it is away; the zero time if never, or not known any more.
func (d *Dir) Granted(r Repository, who string) time.Time {
	info, err := d.root.Stat(path.Join(r.folder(), "_granted", who))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Grant notes that the repository's upstream let who have something. who is
// "anonymous" or of [Dir.Identity].
func (d *Dir) Grant(r Repository, who string) error {
	last := d.Granted(r, who)
	if last.IsZero() {
		return d.writeRecord(path.Join(r.folder(), "_granted", who), struct{}{})
	}
	d.touch(path.Join(r.folder(), "_granted", who), last)
	return nil
}

// Ungrant notes that it does not any more.
func (d *Dir) Ungrant(r Repository, who string) {
	_ = d.root.Remove(path.Join(r.folder(), "_granted", who))
}

// Identity gives a name for the holder of secrets that stays the same as long as
// the cache does, and gives nothing of them away to who has not the cache's key.
func (d *Dir) Identity(secrets ...string) string {
	mac := hmac.New(sha256.New, d.key)
	for _, s := range secrets {
		fmt.Fprintf(mac, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// Answer is a list of tags or referrers as an upstream last gave it.
type Answer struct {
	Body   []byte            `json:"body"`
	Header map[string]string `json:"header"`
	Seen   time.Time         `json:"seen"`
}

// Answer gives what SetAnswer kept under key, which is any text.
func (d *Dir) Answer(r Repository, key string) (*Answer, error) {
	var a Answer
	if err := d.readFile(answerPath(r, key), 2*maxAnswer, &a); err != nil {
		return nil, err
	}
	return &a, nil
}

// SetAnswer keeps a list for when its upstream is away.
func (d *Dir) SetAnswer(r Repository, key string, a Answer) error {
	if len(a.Body) > maxAnswer {
		return fmt.Errorf("a list of %d bytes is not kept", len(a.Body))
	}
	return d.writeRecord(answerPath(r, key), a)
}

func answerPath(r Repository, key string) string {
	return path.Join(r.folder(), "_answers", digest.FromString(key).Encoded())
}

func (d *Dir) readRecord(name string, into any) error { return d.readFile(name, maxRecord, into) }

func (d *Dir) readFile(name string, most int64, into any) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// writeRecord writes a record so that a reader finds the old one or the new one. It
// is not worth a disk's flush: one that is lost or torn is one that is not there.
func (d *Dir) writeRecord(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := d.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	temp := d.partialName("record")
	if err := d.writePartial(temp, append(data, '\n')); err != nil {
		_ = d.root.Remove(temp)
		return err
	}
	if err := d.root.Rename(temp, name); err != nil {
		_ = d.root.Remove(temp)
		return err
	}
	return nil
}

func (d *Dir) writePartial(name string, data []byte) error {
	f, err := d.createPartial(name, os.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}

// Tagged is a tag that is known, with what it meant last.
type Tagged struct {
	Repository Repository
	Tag        string
	Meanings   []Meaning
}

// Tags calls visit for each tag known, sorted by its path.
func (d *Dir) Tags(visit func(Tagged) error) error {
	return fs.WalkDir(d.root.FS(), "repositories", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return ignoreMissing(err)
		}
		if e.IsDir() && strings.HasPrefix(e.Name(), "_") && e.Name() != "_tags" {
			return fs.SkipDir
		}
		folder, tag := path.Split(name)
		repository, ok := strings.CutSuffix(folder, "/_tags/")
		if e.IsDir() || !ok {
			return nil
		}
		repository = strings.TrimPrefix(repository, "repositories/")
		registry, repo, ok := strings.Cut(repository, "/")
		if !ok {
			return nil
		}
		r := Repository{registry, repo}
		if meanings := d.Tag(r, tag); len(meanings) > 0 {
			return visit(Tagged{r, tag, meanings})
		}
		return nil
	})
}
