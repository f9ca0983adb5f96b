package config

import (
	"strings"
	"testing"
)

func TestSizesAreWhatPeopleMean(t *testing.T) {
	for text, want := range map[string]Size{
		"0B": 0, "1B": 1, "1KB": 1000, "1KiB": 1024, "20GiB": 20 << 30, "20 GiB": 20 << 30, "500MB": 500e6,
		"1.5TiB": 3 << 39, "0.5KiB": 512, "1.0005KB": 1000, "2TB": 2e12, "1048576TiB": 1 << 60,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%s is %d bytes, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "20", "20G", "20gib", "20GIB", "1e3MB", "0x10B", "1,5GiB", ".5GiB", "5.GiB", "+1B", "-1B", "1 B ", "1  B", "٣MiB", "1048577TiB", "99999999999999999999B"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}

func TestCacheCanBeTurnedOffAndItsLimitsAreSizes(t *testing.T) {
	c := mustLoad(t, "[cache]\nmin_free = '5GiB'\n", "SIDEMIRROR_CACHE_DIR=", "SIDEMIRROR_CACHE_MAX_SIZE=1TB")
	if c.Cache.Dir != "" || c.Cache.MinFree != (Free{Bytes: 5 << 30}) || c.Cache.MaxSize != 1e12 {
		t.Errorf("got %+v", c.Cache)
	}
	if from := c.origin("cache.dir"); from != "SIDEMIRROR_CACHE_DIR" {
		t.Errorf("cache.dir comes from %s", from)
	}
}

func FuzzParseSize(f *testing.F) {
	for _, text := range []string{"20GiB", "1.5TB", "10%", "0.000001%", "20", "G", "9223372036854775807B", "1.999999999KiB"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err == nil {
			again, err := ParseSize(size.String())
			if size < 0 || size > maxSize || err != nil || again != size {
				t.Errorf("%q is %d, shown as %v, which is %d, %v", text, size, size, again, err)
			}
		} else if len(err.Error()) > 1000 {
			t.Errorf("an error of %d bytes", len(err.Error()))
		}
		free, err := parseFree(text)
		if err == nil {
			if again, err := parseFree(free.String()); err != nil || again != free && free.Bytes+again.Bytes != 0 {
				t.Errorf("%q is shown as %v, which is %v, %v", text, free, again, err)
			}
			if strings.HasSuffix(text, "%") != (free.Bytes == 0 && !strings.HasSuffix(text, "B")) || free.Percent >= 100 {
				t.Errorf("%q is %+v", text, free)
			}
		}
	})
}
