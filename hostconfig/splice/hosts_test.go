package splice

import (
	"bytes"
	"testing"
)

func TestAddWritesOnlyWordsThatEveryVersionKnows(t *testing.T) {
	for _, base := range []string{"", theirs, "server = \"https://r.example\""} {
		out, err := Hosts{URL: ourURL, Registry: "r.example", Mirrors: []Mirror{{URL: "https://o"}}}.Add("f", []byte(base))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"referrers", "push", "skip_verify", "dial_timeout"} {
			if bytes.Contains(out, []byte(word)) {
				t.Errorf("%s in\n%s", word, out)
			}
		}
	}
}
