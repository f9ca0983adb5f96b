package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/sidemirror/sidemirror/proxy/oci"
)

const (
	maxEncodings = 256      // blobs whose encoding is remembered
	maxDecoded   = 64 << 30 // bytes that a compressed blob may become
)

// encoding says what a blob is of which a server says that it compressed it.
type encoding int

const (
	labelled  encoding = iota + 1 // the bytes that come are the blob: only the header is wrong
	decodable                     // decoded, they are the blob
)

// encodings remembers the encoding of blobs, so that each is examined once.
type encodings struct {
	mu    sync.Mutex
	known map[digest.Digest]encoding
}

func (e *encodings) of(d digest.Digest) encoding {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.known[d]
}

func (e *encodings) remember(d digest.Digest, is encoding) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == nil || len(e.known) >= maxEncodings {
		e.known = map[digest.Digest]encoding{}
	}
	e.known[d] = is
}

// fetchContent returns the content of a response that says that it is compressed. Layers are often
// gzip themselves, and servers label them so: of a blob only the digest tells whether it must be
// decoded. It is fetched twice then, so that no byte goes out before that is known.
func (u *Upstream) fetchContent(ctx context.Context, r Request, resp *http.Response) (*http.Response, error) {
	is, err := u.encodingOf(ctx, r, &resp)
	if err != nil {
		return nil, err
	}
	if !encoded(resp) {
		return resp, nil
	}
	if is == labelled {
		resp.Header.Del("Content-Encoding")
		return resp, nil
	}
	if resp.StatusCode == http.StatusPartialContent {
		// A range of compressed bytes is of no use: the whole must be decoded.
		drain(resp)
		if resp, err = u.fetch(ctx, r.whole()); err != nil || !encoded(resp) {
			return resp, err
		}
	}
	return u.decode(r.Method, resp)
}

// whole returns r without its range.
func (r Request) whole() Request {
	r.Header = r.Header.Clone()
	r.Header.Del("Range")
	return r
}

// encodingOf returns the encoding of the blob that r asks for; 0 if it is no blob. If it has to
// examine it, it replaces resp by the response to a new request.
func (u *Upstream) encodingOf(ctx context.Context, r Request, resp **http.Response) (encoding, error) {
	want := r.blob()
	if want == "" || (*resp).StatusCode/100 != 2 {
		return 0, nil
	}
	if is := u.encodings.of(want); is != 0 {
		return is, nil
	}
	all := *resp
	if all.StatusCode == http.StatusPartialContent {
		drain(all)
		var err error
		if all, err = u.fetch(ctx, r.whole()); err != nil {
			return 0, err
		}
	}
	is, err := u.examine(ctx, all, want)
	_ = all.Body.Close()
	if err != nil {
		return 0, err
	}
	u.encodings.remember(want, is)
	*resp, err = u.fetch(ctx, r) //nolint:bodyclose // the caller closes it
	return is, err
}

// examine reads resp and says whether its bytes or what they decode to have the digest want.
func (u *Upstream) examine(ctx context.Context, resp *http.Response, want digest.Digest) (encoding, error) {
	raw, decoded := want.Algorithm().Hash(), want.Algorithm().Hash()
	tee := io.TeeReader(resp.Body, raw)
	all := codings(resp)
	content, canDecode := &http.Response{Body: io.NopCloser(tee)}, len(all) > 0 && len(all) <= maxCodings
	for i := len(all) - 1; i >= 0 && canDecode; i-- {
		canDecode = decodeOnce(all[i], content)
	}
	if canDecode {
		n, err := io.Copy(decoded, io.LimitReader(content.Body, maxDecoded))
		canDecode = err == nil && n < maxDecoded
	}
	_, err := io.Copy(io.Discard, tee)
	switch {
	case err != nil:
		return 0, u.explain(ctx, u.url, err)
	case digest.NewDigest(want.Algorithm(), raw) == want:
		return labelled, nil
	case canDecode && digest.NewDigest(want.Algorithm(), decoded) == want:
		return decodable, nil
	}
	name := strings.Join(all, ", ")
	return 0, &oci.Error{
		Code:    oci.Unavailable,
		Message: fmt.Sprintf("%s sent a blob compressed as %q, which was not asked for, and which does not match its digest", u.url.Host, name[:min(len(name), maxName)]),
	}
}
