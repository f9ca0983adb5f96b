package config

import (
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
	"github.com/sidemirror/sidemirror/internal/problem"
)

// Size is a number of bytes. As text it is a number and a unit: B, KiB, MiB, GiB or TiB, which
// are powers of 1024, or KB, MB, GB or TB, which are powers of 1000.
type Size int64

// Free is how much of a file system must stay free: a number of bytes, or a percentage. One of
// the two is 0.
type Free struct {
	Bytes   Size
	Percent float64
}

// maxSize is larger than every disk: a larger size has the wrong unit.
const maxSize = 1 << 60

// units are in the order in which String tries them.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

var sizeForm = lazyregexp.New(`^([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)$`)

// ParseSize reads a size. It drops a fraction of a byte.
func ParseSize(text string) (Size, error) {
	m := sizeForm().FindStringSubmatch(text)
	if m == nil {
		return 0, wrong(quote(text)+" is not a size", `write a number and a unit, as "20GiB" or "500MB"`)
	}
	for _, u := range units {
		if u.name != m[2] {
			continue
		}
		exact, _ := new(big.Rat).SetString(m[1]) // cannot fail: the form is stricter
		exact.Mul(exact, new(big.Rat).SetInt64(u.bytes))
		n := new(big.Int).Quo(exact.Num(), exact.Denom())
		if !n.IsInt64() || n.Int64() > maxSize {
			return 0, wrong(quote(text)+" is out of range", fmt.Sprintf("write at most %v", Size(maxSize)))
		}
		return Size(n.Int64()), nil
	}
	return 0, wrongUnit(text, m[1], m[2])
}

// wrongUnit returns the error of a size without a known unit. "G" is 1000³ to some programs and
// 1024³ to others, so the hint names both.
func wrongUnit(text, number, unit string) error {
	const all = "B, KiB, MiB, GiB, TiB, KB, MB, GB or TB"
	letter := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(unit), "B"), "I")
	switch {
	case unit == "":
		return wrong(quote(text)+" has no unit", fmt.Sprintf("write %q, or another unit of %s", number+"GiB", all))
	case len(letter) == 1 && strings.Contains("KMGT", letter):
		return wrong(quote(text)+" has an unknown unit", fmt.Sprintf("write %q or %q", number+letter+"iB", number+letter+"B"))
	}
	return wrong(quote(text)+" has an unknown unit", "the units are "+all)
}

// String returns the size exactly: ParseSize returns the same one.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

var percentForm = lazyregexp.New(`^([0-9]{1,2}(?:\.[0-9]{1,6})?) ?%$`)

func parseFree(text string) (Free, error) {
	if !strings.HasSuffix(text, "%") {
		size, err := ParseSize(text)
		if err != nil {
			if p, ok := errors.AsType[*problem.Problem](err); ok {
				p.Hint += `; or a part of the disk, as "10%"`
			}
		}
		return Free{Bytes: size}, err
	}
	m := percentForm().FindStringSubmatch(text)
	if m == nil {
		return Free{}, wrong(quote(text)+" is not a part of a disk", `write 0% to 99%, as "10%"`)
	}
	percent, err := strconv.ParseFloat(m[1], 64)
	return Free{Percent: percent}, err
}

// String returns the value exactly.
func (f Free) String() string {
	if f.Bytes != 0 {
		return f.Bytes.String()
	}
	return strconv.FormatFloat(f.Percent, 'f', -1, 64) + "%"
}

// parseMaxSize refuses 0, for which there is another key.
func parseMaxSize(text string) (Size, error) {
	size, err := ParseSize(text)
	if err == nil && size == 0 {
		err = wrong("the size is 0", `write more than 0B; to store nothing, write dir = ""`)
	}
	return size, err
}
