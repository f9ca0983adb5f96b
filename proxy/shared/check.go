package shared

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/sidemirror/sidemirror/internal/problem"
)

const (
	// sampleSize is the size of the object that a check writes, and samples how often it is read.
	sampleSize = 64 << 10
	samples    = 7

	// maxSkew is how far the clocks may be apart. Stores refuse requests beyond 15 minutes.
	maxSkew = 5 * time.Minute

	// goodLatency is how quickly a store must respond to be asked alone.
	goodLatency = 50 * time.Millisecond
)

// Step is one thing that a check has found out.
type Step struct {
	Name    string // "access", "clock", "write", "read", "ranges", "latency", "conditional-write", "remove"
	Text    string // what was found
	Problem *problem.Problem
	Took    time.Duration
}

// checker is a check that is under way.
type checker struct {
	store  *Store
	key    string // of the object that it writes
	sample []byte
	steps  []Step
}

// Check finds out whether the store can be used: it writes an object, reads it and removes it. Steps
// that make no sense after one that failed are left out.
func (s *Store) Check(ctx context.Context) []Step {
	c := &checker{store: s, key: path.Join(s.config.Prefix, "checks", strings.ToLower(rand.Text())), sample: make([]byte, sampleSize)}
	_, _ = rand.Read(c.sample)
	if !c.step("access", func() (string, error) { return c.access(ctx) }) {
		return c.steps
	}
	if !s.Uploads() {
		c.steps = append(c.steps, Step{Name: "write", Text: "not tried: cache.shared.upload is false"})
		return c.steps
	}
	if !c.step("write", func() (string, error) { return c.write(ctx, false) }) {
		return c.steps
	}
	c.step("read", func() (string, error) { return c.read(ctx) })
	c.step("ranges", func() (string, error) { return c.ranges(ctx) })
	c.step("latency", func() (string, error) { return c.latency(ctx) })
	c.step("conditional-write", func() (string, error) { return c.write(ctx, true) })
	c.step("remove", func() (string, error) { return c.remove(ctx) })
	return c.steps
}

// stepError is a failure with a problem of its own.
type stepError struct{ problem.Problem }

// step does a step, and reports whether it succeeded.
func (c *checker) step(name string, do func() (string, error)) bool {
	began := time.Now()
	text, err := do()
	step := Step{Name: name, Text: text, Took: time.Since(began)}
	var own *stepError
	switch {
	case errors.As(err, &own):
		step.Problem = &own.Problem
	case err != nil:
		f := c.store.faultOf(err)
		if name != "access" && f.code == codeRefused {
			f = c.store.uploadFault(err)
		}
		step.Problem = c.store.describe(f)
	}
	c.steps = append(c.steps, step)
	return err == nil
}

// access asks for an object that cannot exist.
func (c *checker) access(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	s := c.store
	body, _, _, err := s.bucket.get(ctx, s.blobKey(nothing), minio.GetObjectOptions{})
	if err == nil {
		_ = body.Close()
	}
	var r minio.ErrorResponse
	if errors.As(err, &r) && r.Code == minio.AccessDenied {
		return "", &stepError{problem.Problem{
			Code: codeRefused, Text: "the store refuses to say that an object does not exist (AccessDenied)",
			Hint: "allow s3:GetObject for the objects, and s3:ListBucket for the bucket: without the latter, stores say so of every object that is missing",
		}}
	}
	if err != nil && !isMissing(err) {
		return "", err
	}
	return "the bucket " + s.config.Bucket + " at " + s.config.Endpoint.Host + " can be read", nil
}

// write writes the object; if another one must not be replaced, the store must refuse that.
func (c *checker) write(ctx context.Context, again bool) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	s := c.store
	opts := minio.PutObjectOptions{DisableMultipart: true, DisableContentSha256: true}
	if again {
		opts.SetMatchETagExcept("*")
	}
	err := s.bucket.put(ctx, c.key, bytes.NewReader(c.sample), sampleSize, opts)
	switch {
	case again && isPresent(err):
		return "the store does not replace an object if it must not", nil
	case again && (err == nil || lacksConditions(err)):
		return "", &stepError{problem.Problem{
			Code: codeNoConditions, Text: "the store knows no conditional writes (If-None-Match)",
			Hint: "it can be used; hosts that pull the same image at the same time each fetch it from the registry",
		}}
	case err != nil:
		return "", err
	}
	return fmt.Sprintf("an object of %d KiB was written", sampleSize>>10), nil
}

// fetch reads the object, or a range of it.
func (c *checker) fetch(ctx context.Context, opts minio.GetObjectOptions) ([]byte, http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	body, _, header, err := c.store.bucket.get(ctx, c.key, opts)
	if err != nil {
		return nil, nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, sampleSize+1))
	return data, header, err
}

// read compares the object with what was written, and the store's clock with this host's.
func (c *checker) read(ctx context.Context) (string, error) {
	data, header, err := c.fetch(ctx, minio.GetObjectOptions{})
	if err != nil {
		return "", err
	}
	if !bytes.Equal(data, c.sample) {
		return "", &stepError{problem.Problem{Code: codeWrongContent, Text: "the store returns something else than what was written", Hint: hints[codeWrongContent]}}
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil && time.Since(date).Abs() > maxSkew {
		return "", &stepError{problem.Problem{Code: codeClock, Text: fmt.Sprintf("the store's clock and this host's differ by %v", time.Since(date).Abs().Round(time.Second)), Hint: hints[codeClock]}}
	}
	return "what was written is read", nil
}

// ranges reads a part of the object.
func (c *checker) ranges(ctx context.Context) (string, error) {
	const start, end = 1000, 5000
	var opts minio.GetObjectOptions
	_ = opts.SetRange(start, end-1)
	data, header, err := c.fetch(ctx, opts)
	if err != nil {
		return "", err
	}
	if _, _, _, err := contentRange(header); err != nil || !bytes.Equal(data, c.sample[start:end]) {
		return "", &stepError{problem.Problem{Code: codeNoRanges, Text: "the store does not serve a part of an object", Hint: "it cannot be used: use another store, or look for a proxy in front of it"}}
	}
	return "a part of an object is read", nil
}

// latency reads the object several times.
func (c *checker) latency(ctx context.Context) (string, error) {
	var took []time.Duration
	for range samples {
		began := time.Now()
		if _, _, err := c.fetch(ctx, minio.GetObjectOptions{}); err != nil {
			return "", err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	median := took[samples/2].Round(100 * time.Microsecond)
	if median > goodLatency {
		return "", &stepError{problem.Problem{
			Code: codeSlow, Text: fmt.Sprintf("the store takes %v for %d KiB", median, sampleSize>>10),
			Hint: "it can be used; after 50 ms without a response a registry is asked too, and the faster one wins",
		}}
	}
	return fmt.Sprintf("%v for %d KiB", median, sampleSize>>10), nil
}

// remove removes the object, as claims are removed.
func (c *checker) remove(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, shortTimeout)
	defer cancel()
	err := c.store.bucket.remove(ctx, c.key)
	var r minio.ErrorResponse
	if errors.As(err, &r) && r.Code == minio.AccessDenied {
		return "", &stepError{problem.Problem{
			Code: codeReadOnly, Text: "the store refuses to remove an object",
			Hint: "allow s3:DeleteObject for claims/ and checks/; until then claims stay for 30 seconds",
		}}
	}
	return "the object was removed", err
}
