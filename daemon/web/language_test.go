package web

import (
	"strings"
	"testing"
)

func TestPreferredLanguage(t *testing.T) {
	for _, c := range []struct {
		name, header string
		want         language
	}{
		{"nothing said", "", english},
		{"neither language", "de-DE,de;q=0.9", english},
		{"region and script are left aside", "zh-Hant-TW", chinese},
		{"case does not count", "ZH-cn", chinese},
		{"another language that begins alike", "zha", english},
		{"the heavier wins, not the first", "en;q=0.5, zh;q=0.8", chinese},
		{"the first of two alike", "zh,en", chinese},
		{"the first of two alike, the other way", "en,zh", english},
		{"a third language before ours", "fr, zh;q=0.4, en;q=0.3", chinese},
		{"one language twice: the heavier counts", "zh-TW;q=0.1, en;q=0.5, zh;q=0.9", chinese},
		{"q=0 refuses, any other goes", "en;q=0, *", chinese},
		{"wildcard alone", "*", english},
		{"wildcard heavier than what is named", "en;q=0.2, *;q=0.7", chinese},
		{"both refused: a page all the same", "en;q=0, zh;q=0", english},
		{"blanks as RFC 9110 allows", " zh ; q=0.9 ,\ten;q=0.1", chinese},
		{"empty members", ",,zh,", chinese},
		{"a weight over 1 is passed over", "zh;q=2, en;q=0.1", english},
		{"a weight that is no number is passed over", "zh;q=NaN, en;q=0.1", english},
		{"an unknown parameter is passed over", "zh;level=1, en;q=0.1", english},
		{"too many decimals are passed over", "zh;q=0.9999, en;q=0.1", english},
		{"beyond the bound nothing is read", strings.Repeat("de,", maxRanges) + "zh", english},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := preferred(c.header); got != c.want {
				t.Errorf("preferred(%q) = %s, want %s", c.header, got, c.want)
			}
		})
	}
}

func FuzzPreferred(f *testing.F) {
	for _, seed := range []string{"", "zh-CN,zh;q=0.9,en;q=0.8", "*;q=0", "en;q=", ";;q=1,,", "zh ; Q=1.000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		got := preferred(header)
		if pages()[got] == nil {
			t.Fatalf("preferred(%q) = %q, for which there is no page", header, got)
		}
		// Who mentions neither Chinese nor a wildcard never gets the Chinese page.
		if got == chinese && !strings.Contains(strings.ToLower(header), "zh") && !strings.Contains(header, "*") {
			t.Fatalf("preferred(%q) = %s", header, got)
		}
	})
}
