package cache

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A host whose clock was a year ahead leaves times that are still to come. They are no ages.

const ahead = -365 * 24 * time.Hour // ago

func TestContentThatWasUsedInTheFutureAges(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	future := put(t, d, block("f"), ahead)
	past := put(t, d, block("p"), time.Hour)
	if err := d.survey(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	c, err := d.Stored(future, false)
	if err != nil || c.Used.After(time.Now()) {
		t.Errorf("after a survey it was last used at %v, %v", c.Used, err)
	}
	d.limits.Store(&Limits{MaxSize: 15_000})
	if _, files, err := d.evict(t.Context(), nil); err != nil || files != 1 || d.HasBlob(past) {
		t.Errorf("%d files removed, %v", files, err)
	}
}

func TestAUseIsRecordedOverOneInTheFuture(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst := put(t, d, "layer", ahead)
	b, err := d.Blob(dgst, false)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	if c, err := d.Stored(dgst, false); err != nil || c.Used.After(time.Now()) {
		t.Errorf("it was last used at %v, %v", c.Used, err)
	}
}

func TestRecordsFromTheFutureExpire(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{MaxAge: 24 * time.Hour})
	dgst := put(t, d, "layer", 0)
	for _, err := range []error{
		d.HoldBlob(alpine, dgst, Learned{}),
		d.SetAnswer(alpine, "page", Answer{Body: []byte("{}")}),
		d.Grant(alpine, "u", "anonymous", time.Now(), false),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	age(t, d, anyRecord, ahead)
	if err := d.sweepRecords(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	err := d.Records(t.Context(), func(r Record) error {
		if i, err := d.stat(r.Path); err != nil || i.used.After(time.Now()) {
			t.Errorf("%s was written at %v, %v", r.Path, i.used, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestListsFromTheFutureDoNotDisplaceNewOnes(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	for i := range maxLists {
		if err := d.SetAnswer(alpine, fmt.Sprint("old ", i), Answer{Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	age(t, d, anyRecord, ahead)
	for i := range 3 {
		if err := d.SetAnswer(alpine, fmt.Sprint("new ", i), Answer{Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Answer(alpine, fmt.Sprint("new ", i)); err != nil {
			t.Errorf("list %d is gone at once: %v", i, err)
		}
	}
}

func TestWhatWasLearnedInTheFutureIsLearnedAgain(t *testing.T) {
	t.Parallel()
	d := open(t, Limits{})
	dgst := digest.FromString("x")
	learned := Learned{Upstream: "u", By: "me", Since: time.Now().Add(-ahead)}
	for _, since := range []time.Time{learned.Since, time.Now()} {
		learned.Since = since
		for _, err := range []error{
			d.SetTag(alpine, "1", Meaning{Digest: dgst, MediaType: manifestType, Seen: since, Learned: learned}),
			d.HoldBlob(alpine, dgst, learned),
			d.Grant(alpine, "u", "me", time.Now(), false),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	now := time.Now()
	if m := d.Tag(alpine, "1"); len(m) != 1 || m[0].Since.After(now) {
		t.Errorf("%+v", m)
	}
	if h := d.BlobHoldings(alpine, dgst); len(h) != 1 || h[0].Since.After(now) {
		t.Errorf("%+v", h)
	}
	if at := d.Granted(alpine, "u", "me"); at.After(now) {
		t.Errorf("granted at %v", at)
	}
}
