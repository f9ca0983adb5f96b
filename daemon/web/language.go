package web

import (
	"net/http"
	"strconv"
	"strings"
)

// language is a primary language subtag of RFC 5646 that there is a page in.
type language string

const (
	english language = "en"
	chinese language = "zh"
)

// tag returns the language as HTML and HTTP name it: the Chinese of the page is Simplified Chinese.
func (l language) tag() string {
	if l == chinese {
		return "zh-CN"
	}
	return string(l)
}

// maxRanges bounds the language ranges read: browsers send fewer than ten.
const maxRanges = 32

// choose is the page's language: what ?lang= asks for, else what the reader
// prefers, else English.
func choose(r *http.Request) language {
	switch lang := language(r.URL.Query().Get("lang")); lang {
	case english, chinese:
		return lang
	}
	return preferred(strings.Join(r.Header.Values("Accept-Language"), ","))
}

// preferred reads an Accept-Language header (RFC 9110, 12.5.4). Regions and
// scripts are left aside, for there is one page a language: zh-TW is better served
// by Simplified Chinese than by English. Of several ranges of one language the
// heaviest counts; of languages of one weight the first named. "*" weighs those
// that are not named, and names English first. What does not parse is passed over.
func preferred(header string) language {
	weights := map[language]float64{}
	var order []language
	wildcard := 0.0
	for i := 0; i < maxRanges && header != ""; i++ {
		var item string
		item, header, _ = strings.Cut(header, ",")
		tag, params, _ := strings.Cut(item, ";")
		q, ok := weight(params)
		if !ok {
			continue
		}
		primary, _, _ := strings.Cut(strings.ToLower(strings.Trim(tag, " \t")), "-")
		switch lang := language(primary); lang {
		case "*":
			wildcard = max(wildcard, q)
		case english, chinese:
			if _, named := weights[lang]; !named {
				order = append(order, lang)
			}
			weights[lang] = max(weights[lang], q)
		}
	}
	for _, lang := range []language{english, chinese} {
		if _, named := weights[lang]; !named {
			order = append(order, lang)
			weights[lang] = wildcard
		}
	}
	if weights[order[1]] > weights[order[0]] {
		return order[1]
	}
	if weights[order[0]] == 0 {
		return english
	}
	return order[0]
}

// weight reads the part after a range's first semicolon: nothing, or q= and a
// number of 0 to 1 with three decimals at most (RFC 9110, 12.4.2).
func weight(params string) (q float64, ok bool) {
	params = strings.Trim(params, " \t")
	if params == "" {
		return 1, true
	}
	name, value, _ := strings.Cut(params, "=")
	if !strings.EqualFold(name, "q") || len(value) == 0 || len(value) > len("0.000") || strings.Trim(value, "0123456789.") != "" {
		return 0, false
	}
	q, err := strconv.ParseFloat(value, 64)
	return q, err == nil && q <= 1
}
