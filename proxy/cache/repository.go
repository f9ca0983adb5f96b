package cache

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	maxRecord   = 64 << 10 // bytes of a record
	maxAnswer   = 8 << 20  // bytes of a stored list
	maxMeanings = 8        // of one tag: by the kind of manifest and by who asked
	maxHoldings = 8        // of one piece of content: by its upstream and by who asked
)

// Repository is a repository of a registry, by the names that references use. The caller
// checks both against their grammars: they become folders.
type Repository struct{ Registry, Name string }

func (r Repository) folder() string { return "repositories/" + r.Registry + "/" + r.Name }

// Learned says how something about a repository is known.
type Learned struct {
	Upstream string    `json:"upstream,omitempty"` // which upstream said it
	By       string    `json:"by,omitempty"`       // the identity it was said to; "" for a client's own
	Since    time.Time `json:"since,omitzero"`     // when it was said first

	// Untrusted says that it is recorded on behalf of an untrusted caller, whose records have
	// a share and go first.
	Untrusted bool `json:"-"`
}

// Meaning is what a tag meant when its upstream was last asked.
type Meaning struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"`
	Warning   string        `json:"warning,omitempty"` // of the upstream for the client
	Seen      time.Time     `json:"seen"`              // when it was said last
	Learned
}

// Tag returns what is known of a tag: the same name may mean an index to one client and a
// single manifest to another, and each identity has its own. The latest comes first; nil if
// nothing is known. The slice is shared and must not be changed.
func (d *Dir) Tag(r Repository, tag string) []Meaning {
	name := tagPath(r, tag)
	file, err := d.versionOf(name)
	if err != nil {
		return d.readTag(name)
	}
	if all, ok := d.recentTags.get(name, file); ok {
		return all
	}
	all := d.readTag(name)
	if len(all) > 0 && file.settled() {
		d.recentTags.put(name, file, all)
	}
	return all
}

// readTag returns what the record of a tag says.
func (d *Dir) readTag(name string) []Meaning {
	var all []Meaning
	if err := d.readRecord(name, &all); err != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(m Meaning) bool { return m.Digest.Validate() != nil })
}

// SetTag records what a tag means. It replaces what the tag meant to the same identity as
// the same media type before.
func (d *Dir) SetTag(r Repository, tag string, m Meaning) error {
	all := d.readTag(tagPath(r, tag))
	for i, old := range all {
		if oci.MediaType(old.MediaType) != oci.MediaType(m.MediaType) || old.By != m.By {
			continue
		}
		if old.Digest == m.Digest && old.Upstream == m.Upstream && isPast(old.Since) {
			m.Since = old.Since
		}
		all = slices.Delete(all, i, i+1)
		break
	}
	all = slices.Insert(all, 0, m)
	return d.writeRecord(tagPath(r, tag), all[:min(len(all), maxMeanings)], m.Untrusted)
}

// isPast reports whether a time that was read from disk can be believed: a clock that was ahead
// leaves times that are still to come.
func isPast(t time.Time) bool { return !t.IsZero() && !t.After(time.Now()) }

func tagPath(r Repository, tag string) string { return r.folder() + "/" + string(KindTag) + "/" + tag }

// Holding says how it is known that a repository holds some content.
type Holding struct {
	MediaType string `json:"mediaType,omitempty"` // of a manifest, as its upstream sent it
	Learned
}

// holdings is the record of one piece of content in a repository, the latest first.
type holdings []Holding

// UnmarshalJSON implements [json.Unmarshaler]. Early versions recorded one holding.
func (h *holdings) UnmarshalJSON(data []byte) error {
	if one := (Holding{}); len(data) > 0 && data[0] == '{' {
		err := json.Unmarshal(data, &one)
		*h = holdings{one}
		return err
	}
	return json.Unmarshal(data, (*[]Holding)(h))
}

// with returns h with one more holding in front, in the place of the one that the same
// upstream told the same identity.
func (h holdings) with(add Holding) holdings {
	for i, old := range h {
		if old.Upstream == add.Upstream && old.By == add.By {
			if isPast(old.Since) {
				add.Since = old.Since
			}
			h = slices.Delete(h, i, i+1)
			break
		}
	}
	h = slices.Insert(h, 0, add)
	return h[:min(len(h), maxHoldings)]
}

// BlobHoldings returns how it is known that the repository holds the blob; nil if it is not.
func (d *Dir) BlobHoldings(r Repository, dgst digest.Digest) []Holding {
	return d.holdings(r, KindBlob, dgst)
}

func (d *Dir) holdings(r Repository, kind RecordKind, dgst digest.Digest) holdings {
	var h holdings
	if d.readRecord(holdingPath(r, kind, dgst), &h) != nil {
		return nil
	}
	return h
}

// HoldBlob records that the repository holds the blob.
func (d *Dir) HoldBlob(r Repository, dgst digest.Digest, learned Learned) error {
	return d.hold(r, KindBlob, dgst, Holding{Learned: learned})
}

// HoldManifest records that the repository holds the manifest, as of that media type.
func (d *Dir) HoldManifest(r Repository, dgst digest.Digest, h Holding) error {
	err := d.hold(r, KindManifest, dgst, h)
	d.recent.drop(dgst) // its holdings have changed
	return err
}

func (d *Dir) hold(r Repository, kind RecordKind, dgst digest.Digest, h Holding) error {
	known := d.holdings(r, kind, dgst)
	for _, old := range known {
		if old.Upstream == h.Upstream && old.By == h.By && old.MediaType == h.MediaType && isPast(old.Since) {
			return nil
		}
	}
	if err := d.writeRecord(holdingPath(r, kind, dgst), known.with(h), h.Untrusted); err != nil {
		return err
	}
	if known == nil {
		d.noteHolder(r, kind, dgst)
	}
	return nil
}

func holdingPath(r Repository, kind RecordKind, dgst digest.Digest) string {
	if !ValidDigest(dgst) {
		return path.Join(r.folder(), string(kind), noDigest)
	}
	return path.Join(r.folder(), string(kind), dgst.Algorithm().String(), dgst.Encoded())
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

// ManifestHoldings returns how it is known that the repository holds the manifest; nil if it
// is not.
func (d *Dir) ManifestHoldings(r Repository, dgst digest.Digest) []Holding {
	return d.holdings(r, KindManifest, dgst)
}

// Forget removes the record that the repository holds some content.
func (d *Dir) Forget(r Repository, kind RecordKind, dgst digest.Digest) error {
	return ignoreMissing(d.root.Remove(holdingPath(r, kind, dgst)))
}

// Untag takes from a tag its meaning of that manifest, or the tag if it means nothing else.
func (d *Dir) Untag(r Repository, tag string, dgst digest.Digest) error {
	left := slices.DeleteFunc(d.readTag(tagPath(r, tag)), func(m Meaning) bool { return m.Digest == dgst })
	if len(left) > 0 {
		return d.writeRecord(tagPath(r, tag), left, true)
	}
	return ignoreMissing(d.root.Remove(tagPath(r, tag)))
}

// RemoveRepository removes the records of a repository, and the folders that are empty then.
func (d *Dir) RemoveRepository(r Repository) error {
	var errs []error
	for _, kind := range []RecordKind{KindTag, KindManifest, KindBlob, KindList, KindGrant, "_granted"} {
		errs = append(errs, d.root.RemoveAll(r.folder()+"/"+string(kind)))
	}
	for _, folder := range r.folders() {
		if d.root.Remove(folder) != nil {
			break // another repository is in it
		}
	}
	return errors.Join(errs...)
}

// folders returns the folders of a repository and of what it is in, the innermost first.
func (r Repository) folders() []string {
	var all []string
	for f := r.folder(); f != "repositories"; f = path.Dir(f) {
		all = append(all, f)
	}
	return all
}
