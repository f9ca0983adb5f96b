package cache

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Names are what the records of a repository say: what its tags mean, and which manifests it holds.
type Names struct {
	Tags      map[string][]Meaning      // the latest meaning first
	Manifests map[digest.Digest]Holding // the latest of each
}

// Repositories returns the repositories that have records, by the names that images have: what is
// in a repository's name comes before its tags.
func (d *Dir) Repositories(ctx context.Context) ([]Repository, error) {
	var all []Repository
	err := d.eachRepository(ctx, func(r Repository, _ folder, _ []string) error {
		all = append(all, r)
		return nil
	})
	slices.SortFunc(all, func(a, b Repository) int {
		return strings.Compare(a.Registry+"/"+a.Name+":", b.Registry+"/"+b.Name+":")
	})
	return all, err
}

// ReadNames reads the records of a repository. One without any has no names.
func (d *Dir) ReadNames(ctx context.Context, r Repository) (Names, error) {
	n := Names{Tags: map[string][]Meaning{}, Manifests: map[digest.Digest]Holding{}}
	top, err := d.top()
	if err != nil {
		return n, err
	}
	f, err := top.sub(r.folder())
	if err != nil {
		return n, ignoreNoFolder(err)
	}
	defer f.close()
	kinds := []string{string(KindTag), string(KindManifest)}
	err = f.eachRecord(ctx, r, kinds, func(rec Record, in folder, name string) error {
		data, err := in.read(name, maxRecord)
		if err != nil {
			return ignoreNotRegular(err)
		}
		if rec.Kind == KindTag {
			n.Tags[rec.Name] = parseMeanings(data)
			return nil
		}
		var h holdings
		if dgst := rec.Digest(); dgst != "" && json.Unmarshal(data, &h) == nil && len(h) > 0 {
			n.Manifests[dgst] = h[0]
		}
		return nil
	})
	return n, err
}

// parseMeanings reads the record of a tag. A torn one has no meaning.
func parseMeanings(data []byte) []Meaning {
	var all []Meaning
	if json.Unmarshal(data, &all) != nil {
		return nil
	}
	return slices.DeleteFunc(all, func(m Meaning) bool { return !ValidDigest(m.Digest) })
}

// ReadContent reads at most so many bytes of content without counting that as a use.
func (d *Dir) ReadContent(dgst digest.Digest, manifest bool, most int64) ([]byte, Content, error) {
	c := Content{Digest: dgst, Manifest: manifest}
	top, err := d.top()
	if err != nil {
		return nil, c, err
	}
	data, i, err := top.readInfo(c.Path(), most)
	c.Size, c.Used, c.Untrusted = i.size, i.used, i.untrusted
	return data, c, err
}

// eachRepository calls visit for each folder below repositories that has records, with the names in
// it that are those of records.
func (d *Dir) eachRepository(ctx context.Context, visit func(r Repository, f folder, kinds []string) error) error {
	top, err := d.top()
	if err != nil {
		return err
	}
	return top.each("repositories", func(registries folder, registry string) error {
		return registries.each(registry, func(in folder, name string) error {
			return eachRepositoryIn(ctx, in, name, Repository{registry, name}, visit)
		})
	})
}

// maxComponents bounds how deep the names of repositories are followed. A name has 255 bytes.
const maxComponents = 128

func eachRepositoryIn(ctx context.Context, in folder, name string, r Repository, visit func(Repository, folder, []string) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	f, err := in.sub(name)
	if err != nil {
		return ignoreNoFolder(err)
	}
	defer f.close()
	names, err := f.names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	var kinds, inner []string
	for _, n := range names {
		if strings.HasPrefix(n, "_") {
			kinds = append(kinds, n)
		} else {
			inner = append(inner, n)
		}
	}
	if len(kinds) > 0 {
		if err := visit(r, f, kinds); err != nil {
			return err
		}
	}
	if strings.Count(r.Name, "/") >= maxComponents {
		return nil
	}
	for _, n := range inner {
		if err := eachRepositoryIn(ctx, f, n, Repository{r.Registry, r.Name + "/" + n}, visit); err != nil {
			return err
		}
	}
	return nil
}

// eachRecord calls visit for the records of the given kinds in the folder of a repository, each
// with the folder that it is in and its name there.
func (f folder) eachRecord(ctx context.Context, r Repository, kinds []string, visit func(rec Record, in folder, name string) error) error {
	record := func(kind, name string) Record {
		return Record{r, RecordKind(kind), name, path.Join(r.folder(), kind, name)}
	}
	for _, kind := range kinds {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var err error
		switch RecordKind(kind) {
		case KindGrant:
			err = visit(record(kind, ""), f, kind)
		case KindBlob, KindManifest:
			for _, algorithm := range algorithms {
				err = errors.Join(err, f.each(kind+"/"+algorithm, func(in folder, name string) error {
					return visit(record(kind, algorithm+"/"+name), in, name)
				}))
			}
		default:
			err = f.each(kind, func(in folder, name string) error { return visit(record(kind, name), in, name) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}
