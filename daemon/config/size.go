package config

import (
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. As text it is a number and a unit: B, KiB, MiB, GiB or
// TiB, which are powers of 1024, or KB, MB, GB or TB, which are powers of 1000.
type Size int64

// Free is what has to stay free of a filesystem: so many bytes, or per cent of it.
// One of the two is 0.
type Free struct {
	Bytes   Size
	Percent float64
}

// maxSize is a slip of the unit: no host has an exbibyte.
const maxSize = 1 << 60

// units stand in the order that String tries them in.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

var sizeForm = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)$`)

// ParseSize reads a size. Part of a byte is dropped.
func ParseSize(text string) (Size, error) {
	m := sizeForm.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf(`%s is not a size; write a number and a unit, as "20GiB" or "500MB"`, quote(text))
	}
	for _, u := range units {
		if u.name != m[2] {
			continue
		}
		exact, _ := new(big.Rat).SetString(m[1]) // the form admits nothing that it would not take
		exact.Mul(exact, new(big.Rat).SetInt64(u.bytes))
		n := new(big.Int).Quo(exact.Num(), exact.Denom())
		if !n.IsInt64() || n.Int64() > maxSize {
			return 0, fmt.Errorf("%s is out of range; sizes go up to %v", quote(text), Size(maxSize))
		}
		return Size(n.Int64()), nil
	}
	return 0, fmt.Errorf("%s %s", quote(text), missingUnit(m[1], m[2]))
}

// missingUnit says what could have been meant by a unit that is none: "G" is 1000³ to
// some programs and 1024³ to others, so nothing is guessed.
func missingUnit(number, unit string) string {
	const all = "B, KiB, MiB, GiB, TiB, KB, MB, GB or TB"
	letter := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(unit), "B"), "I")
	switch {
	case unit == "":
		return fmt.Sprintf("has no unit; write %q, or another of %s", number+"GiB", all)
	case len(letter) == 1 && strings.Contains("KMGT", letter):
		return fmt.Sprintf("has no unit that is known; write %q or %q", number+letter+"iB", number+letter+"B")
	}
	return "has no unit that is known; they are " + all
}

// String is exact: ParseSize gives the same size back.
func (s Size) String() string {
	for _, u := range units {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

var percentForm = regexp.MustCompile(`^([0-9]{1,2}(?:\.[0-9]{1,6})?) ?%$`)

func parseFree(text string) (Free, error) {
	if !strings.HasSuffix(text, "%") {
		size, err := ParseSize(text)
		if err != nil {
			err = fmt.Errorf(`%w, or a part of the disk, as "10%%"`, err)
		}
		return Free{Bytes: size}, err
	}
	m := percentForm.FindStringSubmatch(text)
	if m == nil {
		return Free{}, fmt.Errorf(`%s is not a part of a disk; write 0%% to 99%%, as "10%%"`, quote(text))
	}
	percent, err := strconv.ParseFloat(m[1], 64)
	return Free{Percent: percent}, err
}

// String is exact, as that of Size.
func (f Free) String() string {
	if f.Bytes != 0 {
		return f.Bytes.String()
	}
	return strconv.FormatFloat(f.Percent, 'f', -1, 64) + "%"
}

// parseMaxSize refuses no size at all, which is said by another key.
func parseMaxSize(text string) (Size, error) {
	size, err := ParseSize(text)
	if err == nil && size == 0 {
		err = errors.New(`must be more than nothing; to keep nothing write dir = ""`)
	}
	return size, err
}

// age is a duration for which things are kept, beside which longestDuration is short.
type age time.Duration

const longestAge = 10 * 365 * 24 * time.Hour

func parseAge(text string) (age, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf(`%s is not a duration; write a number and a unit, as "30m" or "168h"`, quote(text))
	case d < 0 || d > longestAge:
		return 0, fmt.Errorf("%s is out of range; it may be from 0s to %v", quote(text), longestAge)
	}
	return age(d), nil
}
