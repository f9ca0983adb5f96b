package oci

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

// refuse returns what a client gets of an upstream's refusal with that body, and the
// message for the log.
func refuse(t *testing.T, status int, contentType string, body io.Reader) (sent []Item, message string) {
	t.Helper()
	e := &Error{Code: Denied, Status: status, Message: "r.example answered 403"}
	e.ReadRefusal(&http.Response{Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(body)})
	w := httptest.NewRecorder()
	WriteError(w, e)
	var out struct {
		Errors []Item `json:"errors"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != status {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return out.Errors, e.Message
}

func TestAnUpstreamsOwnErrorsArePassedOn(t *testing.T) {
	body := `{"errors":[{"code":"NAME_UNKNOWN","message":"no such\nrepository","detail":{"name":"o/i"}},{"code":"DENIED"}]}`
	sent, message := refuse(t, 404, "application/json; charset=utf-8", strings.NewReader(body))
	want := []Item{{"NAME_UNKNOWN", "no such\nrepository", json.RawMessage(`{"name":"o/i"}`)}, {Code: "DENIED"}}
	if !reflect.DeepEqual(sent, want) {
		t.Errorf("%s", sent)
	}
	if message != "r.example answered 403: NAME_UNKNOWN: no such repository" {
		t.Errorf("%q", message)
	}
}

func TestAReasonInAnotherFormReachesThePerson(t *testing.T) {
	for _, tt := range []struct{ name, contentType, body, want string }{
		{"text", "text/plain; charset=utf-8", "blocked by\n policy 7\n", "blocked by policy 7"},
		{"text without a type", "", "blocked", "blocked"},
		{"HTML", "text/html", "<html><head><title> Blocked\nby policy</title></head><body>…", "Blocked by policy"},
		{"HTML that says nothing", "text/html", "<html><body>no</body></html>", ""},
		{"JSON with a message", "application/json", `{"message":"vulnerabilities: 3 critical"}`, "vulnerabilities: 3 critical"},
		{"RFC 9457", "application/problem+json", `{"title":"Forbidden","detail":"not in your country","status":451}`, "not in your country"},
		{"JSON in JSON", "application/json", `{"error":{"code":403,"message":"project is locked"}}`, "project is locked"},
		{"Artifactory", "application/json", `{"errors":[{"status":403,"message":"Xray blocked it"}]}`, "Xray blocked it"},
		{"codes in lower case", "application/json", `{"errors":[{"code":"denied","message":"no"}]}`, "no"},
		{"terminal escapes", "text/plain", "a\x1b[31mb\x00c", "a [31mb c"},
		{"binary", "application/octet-stream", "\x00\x01", ""},
		{"nothing", "text/plain", "", ""},
		{"JSON that says nothing", "application/json", `{"x":1}`, ""},
		{"a list", "application/json", `[1]`, ""},
		{"no errors", "application/json", `{"errors":[]}`, ""},
	} {
		sent, message := refuse(t, 451, tt.contentType, strings.NewReader(tt.body))
		want := "r.example answered 403"
		if tt.want != "" {
			want += ": " + tt.want
		}
		if message != want || len(sent) != 1 || sent[0].Code != string(Denied) || sent[0].Message != want {
			t.Errorf("%s: %q, sent %s", tt.name, message, sent)
		}
	}
}

func TestARefusalIsBounded(t *testing.T) {
	many := `{"errors":[` + strings.Repeat(`{"code":"DENIED","message":"no"},`, 100) + `{"code":"DENIED"}]}`
	if sent, _ := refuse(t, 403, "application/json", strings.NewReader(many)); len(sent) != maxItems {
		t.Errorf("%d errors", len(sent))
	}
	if _, message := refuse(t, 403, "text/plain", strings.NewReader(strings.Repeat("é", 10000))); len([]rune(message)) > maxReason+50 {
		t.Errorf("%d characters", len([]rune(message)))
	}
	if sent, message := refuse(t, 403, "text/plain", strings.NewReader(strings.Repeat("a", maxRefusal+1))); message != sent[0].Message || strings.Contains(message, "aaa") {
		t.Errorf("%.100s", message)
	}
	if sent, message := refuse(t, 403, "text/plain", io.MultiReader(strings.NewReader("half"), brokenReader{})); message != sent[0].Message || strings.Contains(message, "half") {
		t.Errorf("%.100s", message)
	}
}

// brokenReader is the rest of a body that breaks off.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func FuzzReadRefusal(f *testing.F) {
	f.Add("application/json", []byte(`{"errors":[{"code":"DENIED","message":"no","detail":[1]}]}`))
	f.Add("text/html", []byte("<title>x</title>"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		sent, message := refuse(t, 403, contentType, strings.NewReader(string(body)))
		if len(sent) == 0 || len(sent) > maxItems || strings.ContainsAny(message, "\n\r\x00\x1b") {
			t.Fatalf("%q, sent %s", message, sent)
		}
	})
}
