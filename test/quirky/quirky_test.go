package quirky

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plainClient knows nothing of registries: it follows no redirect, decompresses nothing.
func plainClient(t *testing.T, s *Server) *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.CA())
	transport := &http.Transport{DisableCompression: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// ask sends one request and reads what comes; header holds pairs.
func ask(t *testing.T, c *http.Client, method, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

func TestZeroOptionsServeEveryByteWithEveryHeader(t *testing.T) {
	amd, arm := NewImage(false, "amd64", 3000, 10), NewImage(true, "arm64", 2000)
	index := NewIndex(false, amd, arm)
	for _, withTLS := range []bool{false, true} {
		s := New(t, Options{TLS: withTLS})
		s.Add("team/app", "v1", index)
		c := plainClient(t, s)
		if resp, _, _ := ask(t, c, "GET", s.URL()+"/v2/"); resp.StatusCode != 200 {
			t.Fatalf("/v2/: %d", resp.StatusCode)
		}
		type item struct {
			path, mediaType string
			body            []byte
			digest          digest.Digest
		}
		items := []item{{"manifests/v1", v1.MediaTypeImageIndex, index.Bytes, index.Digest}}
		for _, i := range []Image{index, amd, arm} {
			items = append(items, item{"manifests/" + i.Digest.String(), i.MediaType, i.Bytes, i.Digest})
			for _, b := range i.Blobs {
				items = append(items, item{"blobs/" + b.Digest.String(), "application/octet-stream", b.Bytes, b.Digest})
			}
		}
		for _, i := range items {
			url := s.URL() + "/v2/team/app/" + i.path
			resp, body, err := ask(t, c, "GET", url)
			head, none, _ := ask(t, c, "HEAD", url)
			if err != nil || resp.StatusCode != 200 || !bytes.Equal(body, i.body) || digest.FromBytes(body) != i.digest {
				t.Errorf("%s: %d, %d bytes, %v", i.path, resp.StatusCode, len(body), err)
			}
			for _, h := range []http.Header{resp.Header, head.Header} {
				if h.Get("Content-Type") != i.mediaType || h.Get("Docker-Content-Digest") != i.digest.String() {
					t.Errorf("%s: header %v", i.path, h)
				}
			}
			if head.ContentLength != int64(len(i.body)) || len(none) != 0 {
				t.Errorf("HEAD %s: length %d, want %d", i.path, head.ContentLength, len(i.body))
			}
		}
		if got := s.Count(Registry, "HEAD", "/blobs/"); got != 5 {
			t.Errorf("%d HEADs of blobs on record, want 5", got)
		}
		for _, missing := range []string{"/v2/team/app/manifests/v2", "/v2/team/none/manifests/v1", "/v2/team/app/blobs/sha256:00", "/x"} {
			resp, body, _ := ask(t, c, "GET", s.URL()+missing)
			if resp.StatusCode != 404 || !strings.Contains(string(body), `"errors"`) {
				t.Errorf("%s: %d %s", missing, resp.StatusCode, body)
			}
		}
	}
}

func TestRangeGivesThoseBytesAndNoOthers(t *testing.T) {
	s := New(t, Options{})
	image := NewImage(false, "r", 1000)
	s.Add("a", "", image)
	blob := image.Blobs[1]
	url, size := s.URL()+"/v2/a/blobs/"+blob.Digest.String(), len(blob.Bytes)
	for _, c := range []struct {
		spec   string
		status int
		want   []byte
	}{
		{"bytes=0-9", 206, blob.Bytes[:10]},
		{"bytes=100-", 206, blob.Bytes[100:]},
		{"bytes=-7", 206, blob.Bytes[size-7:]},
		{"bytes=990-99999", 206, blob.Bytes[990:]},
		{"bytes=99999-", 416, nil},
	} {
		resp, body, _ := ask(t, plainClient(t, s), "GET", url, "Range", c.spec)
		if resp.StatusCode != c.status || c.want != nil && !bytes.Equal(body, c.want) {
			t.Errorf("%s: %d, %d bytes", c.spec, resp.StatusCode, len(body))
		}
	}
}

func TestTokenOpensOnlyWhatItsUserMayPull(t *testing.T) {
	s := New(t, Options{Auth: Auth{Scheme: "Bearer", Users: map[string]string{"u": "p"}, Private: []string{"secret/"}}})
	s.Add("open/a", "1", NewImage(false, "o", 1))
	s.Add("secret/a", "1", NewImage(false, "s", 1))
	c := plainClient(t, s)
	token := func(login, repository string) (int, string) {
		var header []string
		if login != "" {
			r, _ := http.NewRequest("GET", "/", nil)
			user, password, _ := strings.Cut(login, ":")
			r.SetBasicAuth(user, password)
			header = []string{"Authorization", r.Header.Get("Authorization")}
		}
		resp, body, _ := ask(t, c, "GET", s.URL()+"/token?service=quirky&scope=repository:"+repository+":pull", header...)
		var answer struct{ Token string }
		_ = json.Unmarshal(body, &answer)
		return resp.StatusCode, answer.Token
	}
	for _, x := range []struct {
		login, repository string
		token, pull       int
	}{
		{"", "open/a", 200, 200},
		{"", "secret/a", 200, 401},
		{"u:p", "secret/a", 200, 200},
		{"u:wrong", "open/a", 401, 401},
	} {
		status, text := token(x.login, x.repository)
		resp, _, _ := ask(t, c, "GET", s.URL()+"/v2/"+x.repository+"/manifests/1", "Authorization", "Bearer "+text)
		if status != x.token || resp.StatusCode != x.pull {
			t.Errorf("%q, %s: token %d, pull %d; want %d, %d", x.login, x.repository, status, resp.StatusCode, x.token, x.pull)
		}
		if resp.StatusCode == 401 && !strings.Contains(resp.Header.Get("WWW-Authenticate"), s.TokenOrigin()+"/token") {
			t.Errorf("challenge %q", resp.Header.Get("WWW-Authenticate"))
		}
	}
	_, text := token("u:p", "secret/a")
	s.RevokeTokens()
	if resp, _, _ := ask(t, c, "GET", s.URL()+"/v2/secret/a/manifests/1", "Authorization", "Bearer "+text); resp.StatusCode != 401 {
		t.Errorf("a revoked token: %d", resp.StatusCode)
	}
	s.Set(func(o *Options) { o.Auth.StaleStatus = 403 })
	if resp, _, _ := ask(t, c, "GET", s.URL()+"/v2/secret/a/manifests/1", "Authorization", "Bearer "+text); resp.StatusCode != 403 {
		t.Errorf("a stale token at ECR Public: %d", resp.StatusCode)
	}
}

func TestSignedURLIsRefusedAsTheStoreDoes(t *testing.T) {
	o := Like("docker.io")
	o.Auth, o.Blobs.OneUse = Auth{}, true
	s := New(t, o)
	image := NewImage(false, "r", 1000)
	s.Add("a", "", image)
	c := plainClient(t, s)
	sign := func() string {
		resp, _, _ := ask(t, c, "GET", s.URL()+"/v2/a/blobs/"+image.Blobs[1].Digest.String())
		if resp.StatusCode != 307 {
			t.Fatalf("redirect: %d", resp.StatusCode)
		}
		return resp.Header.Get("Location")
	}
	location := sign()
	if origin(location) != s.BlobOrigin() || origin(location) == s.URL() {
		t.Errorf("redirected to %s", location)
	}
	for _, x := range []struct {
		method string
		header []string
		want   int
	}{
		{"HEAD", nil, 403},
		{"GET", []string{"Authorization", "Bearer x"}, 400},
		{"GET", nil, 200},
		{"GET", nil, 403}, // used up
	} {
		if resp, _, _ := ask(t, c, x.method, location, x.header...); resp.StatusCode != x.want {
			t.Errorf("%s %v: %d, want %d", x.method, x.header, resp.StatusCode, x.want)
		}
	}
	if got := s.Requests(BlobStore, "GET", ""); len(got) != 3 || got[0].Authorization() != "Bearer x" || got[1].Status != 200 {
		t.Errorf("on record: %+v", got)
	}
}

func TestFaultsHappenWhereTheyShould(t *testing.T) {
	const at = 40000
	image := NewImage(false, "f", 100000)
	blob := image.Blobs[1]
	for _, withTLS := range []bool{false, true} {
		for _, x := range []struct {
			kind    FaultKind
			chunked bool
			length  int // that is read
			clean   bool
			same    bool // up to length
		}{
			{Reset, false, at, false, true},
			{Reset, true, at, false, true},
			{Cut, false, at, false, true},
			{Short, false, at, true, true},
			{Flip, false, len(blob.Bytes), true, false},
			{Extra, true, len(blob.Bytes) + 1, true, false},
		} {
			s := New(t, Options{TLS: withTLS, Blobs: Blobs{Chunked: x.chunked, Fault: Fault{Kind: x.kind, At: at, Times: 1}}})
			s.Add("a", "", image)
			c, url := plainClient(t, s), s.URL()+"/v2/a/blobs/"+blob.Digest.String()
			resp, body, err := ask(t, c, "GET", url)
			if withTLS != (resp.ProtoMajor == 2) {
				t.Errorf("%s: %s", x.kind, resp.Proto)
			}
			if len(body) != x.length || (err == nil) != x.clean || x.same != bytes.HasPrefix(blob.Bytes, body) {
				t.Errorf("TLS %v, %+v: %d bytes, %v", withTLS, x, len(body), err)
			}
			if x.kind == Reset && !withTLS && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%+v: %v is no reset", x, err)
			}
			if _, body, err = ask(t, c, "GET", url); err != nil || !bytes.Equal(body, blob.Bytes) {
				t.Errorf("TLS %v, %s: once was not enough: %v", withTLS, x.kind, err)
			}
		}
	}
}

func TestTagsArePagedAndReferrersFiltered(t *testing.T) {
	s := New(t, Options{Lists: Lists{PageSize: 2}})
	image := NewImage(false, "p", 1)
	for _, tag := range []string{"c", "a", "e", "b", "d"} {
		s.Add("a", tag, image)
	}
	for _, artifact := range []string{"sbom", "signature"} {
		s.Add("a", "", NewReferrer(image, "application/"+artifact, artifact))
	}
	c := plainClient(t, s)
	var got []string
	for next := "/v2/a/tags/list?n=100"; next != ""; {
		resp, body, _ := ask(t, c, "GET", s.URL()+next)
		var page struct{ Tags []string }
		if err := json.Unmarshal(body, &page); err != nil {
			t.Fatal(err)
		}
		got = append(got, page.Tags...)
		link, _, _ := strings.Cut(resp.Header.Get("Link"), ">")
		next = strings.TrimPrefix(link, "<")
	}
	if strings.Join(got, "") != "abcde" || s.Count(Registry, "", "/tags/") != 3 {
		t.Errorf("tags %v in %d pages", got, s.Count(Registry, "", "/tags/"))
	}
	for query, want := range map[string]int{"": 2, "?artifactType=application/sbom": 1, "?artifactType=none": 0} {
		resp, body, _ := ask(t, c, "GET", s.URL()+"/v2/a/referrers/"+image.Digest.String()+query)
		var index v1.Index
		if err := json.Unmarshal(body, &index); err != nil || len(index.Manifests) != want {
			t.Errorf("%q: %d referrers, want %d (%v)", query, len(index.Manifests), want, err)
		}
		if filtered := resp.Header.Get("OCI-Filters-Applied") != ""; filtered != (query != "") {
			t.Errorf("%q: filtered %v", query, filtered)
		}
	}
}

func TestLimitCountsDown(t *testing.T) {
	s := New(t, Options{Limit: Limit{Status: 429, Times: 2, RetryAfter: "7", Body: `{"errors":[]}`}})
	s.Add("a", "1", NewImage(false, "l", 1))
	c := plainClient(t, s)
	for i, want := range []int{429, 429, 200} {
		resp, _, _ := ask(t, c, "GET", s.URL()+"/v2/a/manifests/1")
		if resp.StatusCode != want || want == 429 && resp.Header.Get("Retry-After") != "7" {
			t.Errorf("request %d: %d, %v", i, resp.StatusCode, resp.Header)
		}
	}
}
