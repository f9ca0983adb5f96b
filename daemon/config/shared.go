package config

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// Shared is [cache.shared]: an object storage in which several hosts share blobs.
type Shared struct {
	// URL (url, as "s3://BUCKET/PREFIX?endpoint=https://s3.corp.example&region=REGION") is the bucket.
	// Without an endpoint it is one of AWS. Default none: nothing is shared.
	URL string

	// Private (private) shares also what needs a login. Default false: only what everyone may read.
	Private bool

	// Credentials (credentials, an absolute path) is a file as ~/.aws/credentials. Default none: the
	// systemd credential shared-store, the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or
	// the role of the instance.
	Credentials string

	// CA (ca, an absolute path) is a file with PEM certificates that are trusted in addition to those of
	// the system. Default none.
	CA string

	// Upload (upload) makes this host add to the store what it has fetched. Default true.
	Upload bool

	// Queue (queue, as "4GiB") is how many bytes may wait to be uploaded. What is beyond that is not
	// uploaded. Default 4 GiB.
	Queue Size
}

// Bucket is where a shared store is.
type Bucket struct {
	Endpoint *url.URL // scheme and host
	Name     string
	Prefix   string // without slashes at its ends; "" for none
	Region   string
}

// Bucket returns where the store is; ok is false if nothing is shared.
func (s Shared) Bucket() (b Bucket, ok bool) {
	if s.URL == "" {
		return b, false
	}
	b, err := parseBucket(s.URL)
	return b, err == nil
}

const (
	sharedURL = "cache.shared.url"

	bucketForm = `write "s3://BUCKET/PREFIX?endpoint=https://s3.corp.example&region=REGION"`

	defaultRegion = "us-east-1"

	// maxBucketURL bounds the URL of a bucket, and maxPrefix the prefix in it, in bytes.
	maxBucketURL = 2 << 10
	maxPrefix    = 512
)

var (
	// bucketName is the name of a bucket, as in S3's rules for new ones.
	bucketName = lazyregexp.New(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

	bucketPrefix = lazyregexp.New(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$`)
	regionName   = lazyregexp.New(`^[A-Za-z0-9-]{1,64}$`)
)

// checkBucket accepts the URL of a bucket, or "" for none.
func checkBucket(text string) error {
	if text == "" {
		return nil
	}
	_, err := parseBucket(text)
	return err
}

// parseBucket reads the URL of a bucket. Its errors quote nothing that may have a password.
func parseBucket(text string) (Bucket, error) {
	u, err := url.Parse(text)
	switch {
	case len(text) > maxBucketURL:
		return Bucket{}, wrong(fmt.Sprintf("the URL has more than %d bytes", maxBucketURL), bucketForm)
	case err != nil || u.Scheme != "s3":
		return Bucket{}, wrong("the text is not an s3 URL", bucketForm)
	case u.User != nil:
		return Bucket{}, wrong("the URL contains a user or a password", "remove them, and set credentials")
	case !bucketName().MatchString(u.Host):
		return Bucket{}, wrong(quote(u.Host)+" is not the name of a bucket", bucketForm)
	case u.Fragment != "":
		return Bucket{}, wrong("the URL has a fragment", `remove the "#" and what follows it`)
	}
	b := Bucket{Name: u.Host, Prefix: strings.Trim(u.Path, "/"), Region: defaultRegion}
	if b.Prefix != "" && (len(b.Prefix) > maxPrefix || !bucketPrefix().MatchString(b.Prefix) || slices.ContainsFunc(strings.Split(b.Prefix, "/"), isDots)) {
		return Bucket{}, wrong("the prefix in the bucket has letters other than A-Z, a-z, 0-9, \".\", \"_\" and \"-\", or is too long", bucketForm)
	}
	return b, b.setQuery(u.RawQuery)
}

func isDots(part string) bool { return part == "." || part == ".." }

// setQuery sets what the query of the URL says.
func (b *Bucket) setQuery(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return wrong("the URL has a query that cannot be read", bucketForm)
	}
	for key, values := range query {
		switch {
		case len(values) > 1:
			return wrong(quote(key)+" is there twice", bucketForm)
		case key != "endpoint" && key != "region":
			return wrong(quote(key)+" is not a parameter", "the parameters are endpoint and region; keys belong into the file that credentials names")
		}
	}
	if region := query.Get("region"); region != "" {
		if !regionName().MatchString(region) {
			return wrong(quote(region)+" is not the name of a region", bucketForm)
		}
		b.Region = region
	}
	endpoint := query.Get("endpoint")
	if endpoint == "" {
		endpoint = "https://s3." + b.Region + ".amazonaws.com"
	}
	if b.Endpoint, err = parseURL(endpoint); err != nil {
		return wrong("endpoint: "+err.Error(), bucketForm)
	}
	if strings.Trim(b.Endpoint.Path, "/") != "" {
		return wrong("endpoint: the URL has a path", bucketForm)
	}
	b.Endpoint.Path = ""
	return nil
}

// checkShared compares [cache.shared] with [cache].
func (l *loader) checkShared() {
	shared := l.c.Cache.Shared
	if shared.URL != "" && l.c.Cache.Dir == "" {
		l.complain(sharedURL, -1, `nothing can be shared, because cache.dir is ""`, "set cache.dir, or remove this key")
	}
}
