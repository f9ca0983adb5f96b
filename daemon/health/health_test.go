package health

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/internal/problem"
)

var start = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func coded(code problem.Code, text string) *problem.Problem {
	return &problem.Problem{Code: code, Text: text, Hint: "do something"}
}

func shownAt(r *Registry, at time.Time) (list []string) {
	for _, p := range r.Problems(at) {
		list = append(list, string(p.Code)+" "+p.Error())
	}
	return list
}

func TestProblemsAreShownTheWorstFirstAndWithoutWhatFollows(t *testing.T) {
	r := New(nil)
	r.Set("rate limits", start, coded("rate-limit-used-up", "hub"))
	r.Set("trust", start, coded("trust-by-user-alone", "all"))
	r.Set("upstreams", start, coded("upstream-unreachable", "a"), coded("upstream-unreachable", "b"), coded("upstream-unreachable", "b"))
	r.Set("logins", start.Add(time.Second), coded("helper-failed", "gcr"), coded("login-refused", "hub"))
	if got, want := shownAt(r, start.Add(time.Second)), []string{"helper-failed gcr", "login-refused hub", "rate-limit-used-up hub", "trust-by-user-alone all"}; !slices.Equal(got, want) {
		t.Errorf("at once %q, want %q", got, want)
	}
	late := start.Add(time.Minute)
	if got, want := shownAt(r, late), []string{"helper-failed gcr", "login-refused hub", "rate-limit-used-up hub", "upstream-unreachable a", "upstream-unreachable b", "trust-by-user-alone all"}; !slices.Equal(got, want) {
		t.Errorf("later %q, want %q", got, want)
	}
	r.Set("name servers", late, coded("name-server-denied", "169.254.169.253"))
	if got := shownAt(r, late); slices.Contains(got, "upstream-unreachable a") || len(got) != 5 {
		t.Errorf("with the cause %q", got)
	}
	r.Set("name servers", late)
	r.Set("logins", late)
	if got := shownAt(r, late); len(got) != 4 || got[0] != "rate-limit-used-up hub" {
		t.Errorf("without errors %q", got)
	}
}

func TestAProblemIsAsOldAsItsFirstReport(t *testing.T) {
	r := New(nil)
	for i := range 10 {
		r.Set("upstreams", start.Add(time.Duration(i)*5*time.Second), coded("upstream-unreachable", "a"))
	}
	list := r.Problems(start.Add(21 * time.Second))
	if len(list) != 1 || !list[0].Since.Equal(start) {
		t.Fatalf("%+v", list)
	}
	r.Set("upstreams", start.Add(time.Minute))
	r.Set("upstreams", start.Add(2*time.Minute), coded("upstream-unreachable", "a"))
	if got := shownAt(r, start.Add(2*time.Minute+time.Second)); len(got) != 0 {
		t.Errorf("a problem that came back is shown at once: %q", got)
	}
}

func TestTheLogHasEachProblemOnceAndItsEnd(t *testing.T) {
	var lines []string
	r := New(func(p Problem, over bool) { lines = append(lines, fmt.Sprint(p.Code, " ", over)) })
	for range 3 {
		r.Set("logins", start, coded("login-refused", "hub"), coded("helper-failed", "its source logs it"))
		r.Problems(start)
	}
	r.Set("rate limits", start, coded("rate-limit-used-up", "gone before it was shown"))
	r.Set("rate limits", start)
	r.Set("logins", start)
	r.Problems(start)
	if want := []string{"login-refused false", "login-refused true"}; !slices.Equal(lines, want) {
		t.Errorf("logged %q, want %q", lines, want)
	}
}

func TestAProblemIsTheSameAfterJSON(t *testing.T) {
	r := New(nil)
	r.Set("x", start, &problem.Problem{Code: "rate-limit-used-up", Path: "/a", Line: 3, Text: "text <x>", Hint: "hint"})
	before := r.Problems(start)
	data, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	var after []Problem
	if err := json.Unmarshal(data, &after); err != nil {
		t.Fatal(err)
	}
	b, a := before[0], after[0]
	if a.Title != b.Title || a.Severity != Warning || !a.Since.Equal(start) || *a.Problem != *b.Problem {
		t.Errorf("%s: %+v %+v", data, a, *a.Problem)
	}
	if err := json.Unmarshal([]byte(`[{"code":"x","severity":"fatal"}]`), &after); err == nil {
		t.Error("an unknown severity is accepted")
	}
}

func TestTheRegistryIsSafeForConcurrentUse(t *testing.T) {
	r := New(func(Problem, bool) {})
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 100 {
				r.Set(fmt.Sprint(i), start, coded("login-refused", fmt.Sprint(i)))
				r.Problems(start)
			}
		})
	}
	wait.Wait()
	if n := len(r.Problems(start)); n != 8 {
		t.Errorf("%d problems, want 8", n)
	}
}
