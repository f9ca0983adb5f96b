package shared

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/sidemirror/sidemirror/test/harness"
)

const (
	bucket    = "layers"
	prefix    = "sidemirror"
	accessKey = "access-key-of-the-tests"
	secretKey = "secret-key-of-the-tests-8d21"
)

// store is an object storage with a bucket.
type store struct {
	t      *testing.T
	url    string
	client *minio.Client
}

// kinds are the stores that tests run against: MinIO, and one by other hands.
var kinds = map[string]func(t *testing.T) *store{"minio": startMinIO, "gofakes3": startFake}

// each runs a test against every store.
func each(t *testing.T, test func(t *testing.T, s *store)) {
	for name, start := range kinds {
		t.Run(name, func(t *testing.T) { test(t, start(t)) })
	}
}

// startFake starts gofakes3. It does not verify signatures.
func startFake(t *testing.T) *store {
	t.Helper()
	server := httptest.NewServer(gofakes3.New(s3mem.New(), gofakes3.WithTimeSkewLimit(0)).Server())
	t.Cleanup(server.Close)
	return newStore(t, server.URL)
}

// startMinIO starts MinIO, which setup.sh has built.
func startMinIO(t *testing.T) *store {
	t.Helper()
	address := harness.FreeAddress(t)
	home := t.TempDir()
	cmd := exec.Command(program(t, "minio"), "server", "--quiet", "--address", address, "--console-address", harness.FreeAddress(t), filepath.Join(home, "data"))
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "MINIO_ROOT_USER=" + accessKey, "MINIO_ROOT_PASSWORD=" + secretKey, "MINIO_BROWSER=off", "MINIO_UPDATE=off", "GOMAXPROCS=2"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("MinIO: %s", out.String())
		}
	})
	url := "http://" + address
	eventually(t, "MinIO serves", func() bool {
		resp, err := http.Get(url + "/minio/health/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return newStore(t, url)
}

// program returns the path of a program that setup.sh has built.
func program(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("SIDEMIRROR_TEST_BIN")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			t.Fatal(err)
		}
		dir = filepath.Join(home, ".cache", "sidemirror-test", "bin")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run test/setup.sh", err)
	}
	return path
}

func newStore(t *testing.T, url string) *store {
	t.Helper()
	client, err := minio.New(strings.TrimPrefix(url, "http://"), &minio.Options{Creds: credentials.NewStaticV4(accessKey, secretKey, ""), Region: "us-east-1"})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{t, url, client}
	eventually(t, "the bucket is made", func() bool {
		return client.MakeBucket(context.Background(), bucket, minio.MakeBucketOptions{}) == nil
	})
	return s
}

// at returns the store as it is reached through another address.
func (s *store) at(url string) *store { return &store{s.t, url, s.client} }

// objects returns the names of the objects in the bucket, without the prefix.
func (s *store) objects() []string {
	s.t.Helper()
	var names []string
	for o := range s.client.ListObjects(s.t.Context(), bucket, minio.ListObjectsOptions{Recursive: true}) {
		if o.Err != nil {
			s.t.Fatal(o.Err)
		}
		names = append(names, strings.TrimPrefix(o.Key, prefix+"/"))
	}
	slices.Sort(names)
	return names
}

// has reports whether the store has a blob.
func (s *store) has(b blob) bool { return slices.Contains(s.objects(), b.object()) }

// content returns an object.
func (s *store) content(b blob) []byte {
	s.t.Helper()
	o, err := s.client.GetObject(s.t.Context(), bucket, prefix+"/"+b.object(), minio.GetObjectOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer o.Close()
	data, err := io.ReadAll(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

// put replaces the object of a blob.
func (s *store) put(b blob, content []byte) {
	s.t.Helper()
	if _, err := s.client.PutObject(s.t.Context(), bucket, prefix+"/"+b.object(), bytes.NewReader(content), int64(len(content)), minio.PutObjectOptions{DisableContentSha256: true}); err != nil {
		s.t.Fatal(err)
	}
}

// config is the part of a configuration that names the store.
func (s *store) config(more ...string) string {
	return fmt.Sprintf("\n[cache.shared]\nurl = \"s3://%s/%s?endpoint=%s\"\n%s\n", bucket, prefix, s.url, strings.Join(more, "\n"))
}

// environment has the credentials.
func environment(secret string) []string {
	return []string{"AWS_ACCESS_KEY_ID=" + accessKey, "AWS_SECRET_ACCESS_KEY=" + secret}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for range 300 {
		if condition() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("it never came about that %s", what)
}
