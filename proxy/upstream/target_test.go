package upstream

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/proxy/credential"
)

// signing is a registry that redirects to signed URLs of a store, each good for some requests.
type signing struct {
	t               *testing.T
	uses            int32
	redirects       atomic.Int32
	left            atomic.Int32
	refusal         int
	registry, store string
}

func newSigning(t *testing.T, uses int32, refusal int) *signing {
	s := &signing{t: t, uses: uses, refusal: refusal}
	s.store = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the store got the token")
		}
		if r.URL.Query().Get("n") != fmt.Sprint(s.redirects.Load()) || s.left.Add(-1) < 0 {
			w.WriteHeader(s.refusal)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(blob))
	}).URL
	s.registry = serve(t, func(w http.ResponseWriter, r *http.Request) {
		s.left.Store(s.uses)
		http.Redirect(w, r, fmt.Sprintf("%s/?n=%d", s.store, s.redirects.Add(1)), http.StatusTemporaryRedirect)
	}).URL
	return s
}

// ranges asks for n ranges of the blob and fails the test unless each is right.
func (s *signing) ranges(n int) {
	s.t.Helper()
	u := newUpstream(s.t, Config{URL: mustURL(s.registry)})
	target := new(Target)
	for i := range n {
		r := get(blobPath)
		r.Authorization = credential.NewSecret("Bearer canary")
		r.Target = target
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", i*1000, i*1000+999))
		resp, err := u.Do(context.Background(), r)
		if err != nil {
			s.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusPartialContent || !bytes.Equal(body, blob[i*1000:(i+1)*1000]) {
			s.t.Fatalf("range %d: status %d, %d bytes, %v", i, resp.StatusCode, len(body), err)
		}
	}
}

func TestOneRedirectServesAllRangesOfABlob(t *testing.T) {
	s := newSigning(t, 100, http.StatusForbidden)
	s.ranges(20)
	if n := s.redirects.Load(); n != 1 {
		t.Errorf("the registry was asked %d times", n)
	}
}

func TestASignedURLThatExpiresIsResolvedAgain(t *testing.T) {
	for _, refusal := range []int{400, 401, 403, 404, 410, 500} {
		s := newSigning(t, 5, refusal)
		s.ranges(20)
		if n := s.redirects.Load(); n != 4 {
			t.Errorf("%d: the registry was asked %d times", refusal, n)
		}
	}
}

// A URL that is good for one request costs one vain attempt and no more.
func TestASignedURLForOneUseIsResolvedForEachRange(t *testing.T) {
	s := newSigning(t, 1, http.StatusForbidden)
	s.ranges(20)
	if n := s.redirects.Load(); n != 20 {
		t.Errorf("the registry was asked %d times", n)
	}
}

func TestAStoreThatIsGoneIsResolvedAgain(t *testing.T) {
	s := newSigning(t, 100, http.StatusForbidden)
	u := newUpstream(t, Config{URL: mustURL(s.registry)})
	target := &Target{at: mustURL("http://" + closedPort(t))}
	r := anonymous(blobPath)
	r.Target = target
	if resp := must(t, u, r); resp.StatusCode != http.StatusOK {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// A 403 of the registry itself is its answer.
func TestARefusalAfterASecondResolutionIsTheAnswer(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusForbidden)
	})
	u := newUpstream(t, Config{URL: mustURL(s.URL)})
	r := anonymous(blobPath)
	r.Target = &Target{at: mustURL(s.URL + "/expired")}
	if resp := must(t, u, r); resp.StatusCode != http.StatusForbidden || asked.Load() != 2 {
		t.Errorf("status %d after %d requests", resp.StatusCode, asked.Load())
	}
}
