package hostconfig

import (
	"context"
	"errors"
	"slices"
	"testing"
)

// images record what is done with them.
type images struct {
	pull, remove error
	done         []string
}

func (i *images) Pull(_ context.Context, reference string) error {
	i.done = append(i.done, "pull "+reference)
	return i.pull
}

func (i *images) Remove(ctx context.Context, reference string) error {
	i.done = append(i.done, "remove "+reference)
	return errors.Join(i.remove, ctx.Err())
}

func TestAnImageThatWasPulledToTryIsRemoved(t *testing.T) {
	refused, stuck := errors.New("refused"), errors.New("in use")
	for name, test := range map[string]struct {
		images images
		want   error
	}{
		"pulled":                    {images{}, nil},
		"not pulled":                {images{pull: refused, remove: stuck}, refused},
		"not removed":               {images{remove: stuck}, stuck},
		"an engine that cannot":     {images{pull: errors.ErrUnsupported}, ErrNoPull},
		"nothing pulled or removed": {images{pull: refused, remove: nil}, refused},
	} {
		t.Run(name, func(t *testing.T) {
			err := try(t.Context(), &test.images, "r.example/i:t")
			if !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			wanted := []string{"pull r.example/i:t", "remove r.example/i:t"}
			if test.want == ErrNoPull { //nolint:errorlint // it is the same value
				wanted = wanted[:1]
			}
			if !slices.Equal(test.images.done, wanted) {
				t.Errorf("%q", test.images.done)
			}
		})
	}
}

func TestAnInterruptedTryRemovesTheImageToo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	i := &images{}
	if err := try(ctx, i, "r.example/i:t"); err != nil || len(i.done) != 2 {
		t.Errorf("%v, %q", err, i.done)
	}
}

func TestTheLastLineOfAProgramIsItsError(t *testing.T) {
	for text, want := range map[string]string{"": "", "a\nError: b\n": "Error: b", "a\xff": "a"} {
		if got := lastLine(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
