package cache

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/quirky"
)

// trials is how many blobs are fetched in one run, each by some clients at once.
const trials = 120

// visit is what one client does: it asks for a part or for all, and may leave early.
type visit struct {
	wait  time.Duration
	spec  string // Range
	leave int    // after so many bytes; -1: it stays to the end
}

// Whatever comes together, what ends cleanly is right.
func TestClientsAndFaultsInAnyOrderGiveExactBytesOrABrokenConnection(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("SIDEMIRROR_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("SIDEMIRROR_TEST_SEED: %v", err)
		}
	}
	random := rand.New(rand.NewPCG(seed, 1))
	r := start(t, quirky.Options{}, nil)
	seen := map[string]time.Time{}
	clean := 0
	for n := range trials {
		size := random.IntN(600 << 10)
		if n%10 == 0 {
			size = random.IntN(3) // a byte or two, or none
		}
		b := rawBlob(fmt.Sprint(seed, n), size)
		r.up.Add(repo, "", composed(image.Blobs[0], b))
		blobs := anyFault(random, len(b.Bytes))
		r.up.Set(func(o *quirky.Options) { o.Blobs = blobs })
		visits := make([]visit, 1+random.IntN(6))
		for i := range visits {
			visits[i] = anyVisit(random, len(b.Bytes))
		}
		lies := blobs.Fault.Kind == quirky.Short || blobs.Fault.Kind == quirky.Flip || blobs.Fault.Kind == quirky.Extra
		ended := make([]bool, len(visits))
		harness.Together(len(visits), func(i int) {
			ended[i] = r.visit(fmt.Sprintf("trial %d, seed %d, %d bytes, upstream %+v, client %+v", n, seed, len(b.Bytes), blobs, visits[i]), b, visits[i], lies)
		})
		for i, e := range ended {
			if e {
				clean++
			} else if blobs.Fault.Kind == "" && visits[i].leave < 0 {
				t.Errorf("trial %d, seed %d: nothing was wrong upstream, and client %+v got no clean end", n, seed, visits[i])
			}
		}
		content(t, r.folder, seen)
	}
	if clean < trials/2 {
		t.Errorf("only %d answers of %d trials ended cleanly: this says little", clean, trials)
	}
	r.settles()
	content(t, r.folder, nil)
}

func rawBlob(seed string, size int) quirky.Blob {
	bytes := quirky.Bytes(seed, size)
	return quirky.Blob{MediaType: layer.MediaType, Bytes: bytes, Digest: quirky.Raw("", bytes).Digest}
}

// anyFault is a way for an upstream to serve a blob of so many bytes.
func anyFault(random *rand.Rand, size int) quirky.Blobs {
	kinds := []quirky.FaultKind{"", "", quirky.Cut, quirky.Reset, quirky.Cut, quirky.Reset, quirky.Short, quirky.Flip, quirky.Extra}
	b := quirky.Blobs{Chunked: random.IntN(3) == 0, NoRange: random.IntN(4) == 0, WrongRange: random.IntN(10) == 0}
	if random.IntN(3) == 0 {
		b.Redirect = http.StatusTemporaryRedirect
	}
	b.Fault = quirky.Fault{Kind: kinds[random.IntN(len(kinds))], At: random.IntN(size + 1), Times: []int{1, 1, 1, 2, 3, 0}[random.IntN(6)]}
	if b.WrongRange && b.Fault.Kind == "" {
		b.WrongRange = false // else something is wrong with the upstream
	}
	return b
}

func anyVisit(random *rand.Rand, size int) visit {
	v := visit{wait: time.Duration(random.IntN(4000)) * time.Microsecond, leave: -1}
	first := random.IntN(size + 2)
	switch random.IntN(7) {
	case 0:
		v.spec = fmt.Sprintf("bytes=%d-", first)
	case 1:
		v.spec = fmt.Sprintf("bytes=%d-%d", first, first+random.IntN(size+2))
	case 2:
		v.spec = fmt.Sprintf("bytes=-%d", 1+random.IntN(size+2))
	case 3:
		v.spec = "bytes=0-9,20-29"
	}
	if random.IntN(4) == 0 {
		v.leave = random.IntN(size + 1)
	}
	return v
}

// visit does as v says, and reports whether the answer ended cleanly and had what
// was asked for. A clean end with anything else fails the test.
func (r *rig) visit(what string, b quirky.Blob, v visit, lies bool) bool {
	<-time.After(v.wait)
	// In prefix form: an upstream that failed a moment ago is asked all the same.
	request, err := http.NewRequest(http.MethodGet, r.URL()+"/v2/"+name+"/"+repo+"/blobs/"+b.Digest.String(), nil)
	if err != nil {
		r.t.Error(err)
		return false
	}
	if v.spec != "" {
		request.Header.Set("Range", v.spec)
	}
	client := harness.Client(r.t)
	defer client.CloseIdleConnections()
	resp, err := client.Do(request)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if v.leave >= 0 {
		_, _ = io.CopyN(io.Discard, resp.Body, int64(v.leave)) // a broken answer is none to it
		return false
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= 500 {
		return false
	}
	if v.spec != "" && lies {
		// sidemirror has nothing else of a blob that it passes a range of without storing it, so it
		// cannot tell a wrong range from a right one. The engine checks the digest.
		return true
	}
	a := harness.Answer{Status: resp.StatusCode, Header: resp.Header, Body: body}
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && v.spec == "" {
		r.t.Errorf("%s: 416 to no Range", what)
	}
	r.ranged(what, a, b.Bytes)
	return true
}
