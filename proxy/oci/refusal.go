package oci

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

const (
	maxItems  = 16
	maxReason = 300 // characters
)

// Item is one error of the specification's error body.
type Item struct {
	Code    string          `json:"code"`
	Message string          `json:"message,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"`
}

var (
	codeGrammar = lazyregexp.New(`^[A-Z][A-Z0-9_]{0,63}$`)
	htmlTitle   = lazyregexp.New(`(?is)<title[^>]*>(.*?)</title>`)
)

// ReadRefusal reads the body of resp, an upstream's refusal, and closes it. If it is the
// error body of the specification, the upstream's own errors are sent in place of e's
// code and message. If it gives a reason in another form, the reason becomes part of the
// message: a proxy that blocks an image says why in text or HTML.
func (e *Error) ReadRefusal(resp *http.Response) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal+1))
	_ = resp.Body.Close()
	if err != nil || len(body) > maxRefusal {
		return
	}
	items, reason := parseRefusal(body, MediaType(resp.Header.Get("Content-Type")))
	e.Passed = items
	if reason != "" {
		e.Message += ": " + reason
	}
}

// parseRefusal returns the errors of the specification that body holds, if it is valid,
// and its reason, in one line.
func parseRefusal(body []byte, mediaType string) (items []Item, reason string) {
	var known struct {
		Errors []Item `json:"errors"`
	}
	if json.Unmarshal(body, &known) == nil && len(known.Errors) > 0 {
		known.Errors = known.Errors[:min(len(known.Errors), maxItems)]
		valid := true
		for i, item := range known.Errors {
			valid = valid && codeGrammar().MatchString(item.Code)
			if i == 0 {
				reason = oneLine(strings.TrimPrefix(item.Code+": "+item.Message, ": "))
			}
		}
		if valid {
			return known.Errors, strings.TrimSuffix(reason, ":")
		}
		return nil, oneLine(known.Errors[0].Message)
	}
	var object map[string]any
	if json.Unmarshal(body, &object) == nil {
		return nil, reasonIn(object)
	}
	switch {
	case mediaType == "text/html" || htmlTitle().Match(body):
		if m := htmlTitle().FindSubmatch(body); m != nil {
			return nil, oneLine(string(m[1]))
		}
		return nil, ""
	case mediaType == "" || mediaType == "text/plain":
		return nil, oneLine(string(body))
	}
	return nil, ""
}

// reasonIn finds the reason in a JSON object of any kind (RFC 9457 and its relatives).
func reasonIn(object map[string]any) string {
	for _, name := range []string{"message", "detail", "details", "error_description", "error", "reason", "title", "errors"} {
		switch v := object[name].(type) {
		case string:
			return oneLine(v)
		case map[string]any:
			return reasonIn(v)
		case []any:
			if first, ok := firstObject(v); ok {
				return reasonIn(first)
			}
		}
	}
	return ""
}

func firstObject(list []any) (map[string]any, bool) {
	if len(list) == 0 {
		return nil, false
	}
	object, ok := list[0].(map[string]any)
	return object, ok
}

// oneLine returns text fit for one line of a message: printable, and not long.
func oneLine(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	if runes := []rune(text); len(runes) > maxReason {
		text = string(runes[:maxReason]) + "…"
	}
	return strings.ToValidUTF8(text, "")
}
