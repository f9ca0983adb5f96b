package auth

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestLifetimeIsClamped(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, expiresIn, issuedAt string
		want                      time.Duration
	}{
		{"missing", "", "", 54 * time.Second},
		{"null", "null", "", 54 * time.Second},
		{"five minutes (hubproxy cached it longer)", "300", "", 270 * time.Second},
		{"a string", `"300"`, "", 270 * time.Second},
		{"a fraction", "0.5", "", 450 * time.Millisecond},
		{"negative", "-1", "", 54 * time.Second},
		{"zero", "0", "", 54 * time.Second},
		{"huge", "1e18", "", 54 * time.Minute},
		{"beyond all numbers", "1e999", "", 54 * time.Second},
		{"not a number", `"NaN"`, "", 54 * time.Second},
		{"nonsense", `{"a":1}`, "", 54 * time.Second},
		{"issued a while ago", "300", `"2026-11-23T11:59:00Z"`, 216 * time.Second},
		{"issued in the future does not lengthen", "300", `"2027-01-01T00:00:00Z"`, 270 * time.Second},
		{"issued long ago, by a clock that is wrong", "300", `"2020-01-01T00:00:00Z"`, 9 * time.Second},
		{"issued long ago, and short", "5", `"2020-01-01T00:00:00Z"`, 4500 * time.Millisecond},
		{"issued at nonsense", "300", `"yesterday"`, 270 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := lifetime(json.RawMessage(tt.expiresIn), json.RawMessage(tt.issuedAt), now); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

func TestTokenAnswers(t *testing.T) {
	big := strings.Repeat("a", 5<<10)
	for _, tt := range []struct {
		name, body, want string
	}{
		{"token", `{"token":"t"}`, "t"},
		{"access token", `{"access_token":"a"}`, "a"},
		{"both", `{"token":"t","access_token":"a"}`, "t"},
		{"5 KiB", `{"token":"` + big + `"}`, big},
		{"none", `{}`, ""},
		{"empty", `{"token":""}`, ""},
		{"HTML", `<html>sign in</html>`, ""},
		{"a list", `[]`, ""},
		{"a header in it", `{"token":"a\r\nX: y"}`, ""},
		{"too long", `{"token":"` + strings.Repeat("a", maxTokenBody) + `"}`, ""},
		{"nothing", ``, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readToken(strings.NewReader(tt.body), time.Now())
			if (err == nil) != (tt.want != "") || err == nil && got.value.Reveal() != tt.want {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "99999999": time.Hour, "99999999999999999999": time.Hour,
		"Mon, 23 Nov 2026 12:00:30 GMT": 30 * time.Second, "Mon, 23 Nov 2020 12:00:30 GMT": 0, "soon": 0,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {value}}, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func FuzzReadToken(f *testing.F) {
	f.Add([]byte(`{"token":"t","expires_in":300,"issued_at":"2026-11-23T11:59:00Z"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		now := time.Now()
		tok, err := readToken(strings.NewReader(string(body)), now)
		if err != nil {
			return
		}
		life := tok.expiry.Sub(now)
		if tok.value.IsZero() || life <= 0 || life > maxLifetime {
			t.Fatalf("a token of %v", life)
		}
		if strings.ContainsAny(tok.value.Reveal(), " \r\n\x00") {
			t.Fatal("a token that would not stay in its header")
		}
	})
}

// A host without a battery may start with a clock that is years behind.
func TestARetryAfterWithADateCountsByTheClockOfTheServer(t *testing.T) {
	server := time.Now()
	h := http.Header{
		"Date":        {server.UTC().Format(http.TimeFormat)},
		"Retry-After": {server.Add(30 * time.Second).UTC().Format(http.TimeFormat)},
	}
	for _, jump := range []time.Duration{-20 * 365 * 24 * time.Hour, 0, 20 * 365 * 24 * time.Hour} {
		if got := RetryAfter(h, server.Add(jump)); got != 30*time.Second {
			t.Errorf("with a clock that differs by %v: %v", jump, got)
		}
	}
}
