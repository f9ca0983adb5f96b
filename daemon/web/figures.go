package web

import (
	"cmp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// liveView is what the template of the live part shows.
type liveView struct {
	Words    words
	Now      time.Time
	Detailed bool
	Verdict  verdict
	LastPull string
	Problems []problemRow
	Wrong    bool // one of them is more than a note
	Figures  []figure
	Traffic  trafficChart
	Pulls    []pullRow
	Earlier  int // pulls that are not in Pulls

	Downloads []downloadRow
	Servers   []serverRow
}

// figure is a tile: a large number and what explains it.
type figure struct {
	Title, Big, Note string

	// Label describes the chart. Without one there is no chart.
	Label string
	Ring  bool  // it is a ring that is filled to Share
	Share int   // percent
	Bars  []bar // otherwise it shows these or, if there are none, a meter
	Low   bool  // the share is so low that it is a warning
}

// bar is a bar of a chart that is 100 high and has a column of the width 10 for each bar.
type bar struct{ X, Stored, Fetched, Top, Middle int }

type trafficChart struct {
	Label string
	Width int
	Bars  []bar
	Peak  string
	Empty bool
}

type pullRow struct {
	Registry, Name, Engine, Size, Source, Time, Speed, When, Exact string

	Kind string // of the sign before Source
}

type downloadRow struct {
	Registry, Name, Engine, Progress, Source string

	Kind  string // of the sign before the name
	Share int    // percent; less than 0 if it is not known
}

type problemRow struct {
	Problem
	Tone  tone
	Label string
}

type serverRow struct {
	Registry, Host, State, Why string
	Away                       bool
}

// most bounds what lists of the page show.
const (
	mostPulls     = 25
	mostDownloads = 8
	mostServers   = 24
	mostProblems  = 12
)

func newLiveView(l Live, detailed bool, w words) liveView {
	v := liveView{
		Words: w, Now: l.At, Detailed: detailed, Verdict: judge(l, w), LastPull: w.say("no pull"),
		Figures: []figure{hitRate(l, w), saved(l, w)},
		Traffic: traffic(l, w),
		Earlier: max(0, len(l.Pulls)-mostPulls),
	}
	if !l.LastPull.IsZero() {
		v.LastPull = w.say("last pull", w.ago(l.At, l.LastPull))
	}
	v.Figures = append(v.Figures, budgets(l, w)...)
	v.Figures = append(v.Figures, stored(l, w))
	for _, p := range l.Problems[:min(len(l.Problems), mostProblems)] {
		v.Problems = append(v.Problems, newProblemRow(p, w))
		v.Wrong = v.Wrong || !p.Note
	}
	for _, p := range l.Pulls[:min(len(l.Pulls), mostPulls)] {
		v.Pulls = append(v.Pulls, newPullRow(p, l.At, w))
	}
	for _, d := range l.Downloads[:min(len(l.Downloads), mostDownloads)] {
		v.Downloads = append(v.Downloads, newDownloadRow(d, w))
	}
	for _, u := range l.Upstreams[:min(len(l.Upstreams), mostServers)] {
		row := serverRow{Registry: u.Registry, Host: u.Host, State: w.say("reachable"), Why: u.Why, Away: u.Away}
		if u.Away {
			row.State = w.say("unreachable")
			if !u.Since.IsZero() {
				row.State += " " + w.say("for", w.span(l.At.Sub(u.Since)))
			}
		}
		v.Servers = append(v.Servers, row)
	}
	return v
}

// newProblemRow returns the row of a problem, with its title in the language if there is one.
func newProblemRow(p Problem, w words) problemRow {
	r := problemRow{Problem: p, Tone: warning, Label: w.say("warning")}
	switch {
	case p.Severe:
		r.Tone, r.Label = bad, w.say("severe")
	case p.Note:
		r.Tone, r.Label = unsure, w.say("note")
	}
	if title, ok := w["title "+p.Code]; ok {
		r.Title = title
	}
	r.Title = cmp.Or(r.Title, p.Code)
	r.Title = capitalized(r.Title)
	return r
}

// capitalized returns text with a capital as its first letter, if that letter has one.
func capitalized(text string) string {
	first, size := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[size:]
}

func hitRate(l Live, w words) figure {
	var hits, requests int64
	for _, t := range l.Traffic {
		hits, requests = hits+t.Hits, requests+t.Requests
	}
	f := figure{Title: w.say("hit rate"), Big: "–", Note: w.say("nothing yet"), Ring: true, Label: w.say("nothing yet")}
	if requests > 0 {
		f.Share = percent(hits, requests)
		f.Big = w.say("percent", f.Share)
		f.Note = w.say("hit rate note", hits, requests)
		f.Label = w.say("hit rate chart", f.Share)
	}
	return f
}

// totals returns how many bytes of the last hour came from the cache and from registries.
func totals(l Live) (stored, fetched int64) {
	for _, t := range l.Traffic {
		stored, fetched = stored+t.Stored, fetched+t.Fetched
	}
	return stored, fetched
}

func saved(l Live, w words) figure {
	stored, fetched := totals(l)
	return figure{
		Title: w.say("saved"), Big: size(stored), Note: w.say("saved note", size(fetched)),
		Label: w.say("saved chart", size(stored), size(fetched)),
		Bars:  columns(l.Traffic, func(t Traffic) (int64, int64) { return t.Stored, 0 }),
	}
}

// budgets returns a tile for each budget, at most two, Docker Hub's first.
func budgets(l Live, w words) []figure {
	list := slices.Clone(l.Budgets)
	slices.SortStableFunc(list, func(a, b Budget) int { return rank(a) - rank(b) })
	if len(list) == 0 {
		return []figure{{Title: w.say("budget", "Docker Hub"), Big: "–", Note: w.say("budget hub")}}
	}
	var figures []figure
	for _, b := range list[:min(len(list), 2)] {
		name := b.Registry
		if name == dockerHub {
			name = "Docker Hub"
		}
		f := figure{Title: w.say("budget", name), Big: number(b.Remaining)}
		var notes []string
		if b.Limit > 0 {
			f.Share = percent(int64(b.Remaining), int64(b.Limit))
			f.Low = f.Share <= 10
			f.Label = w.say("budget chart", b.Remaining, b.Limit)
			of := w.say("budget of", b.Limit)
			if b.Window > 0 {
				of = w.say("budget of in", b.Limit, w.span(b.Window))
			}
			notes = append(notes, of)
		}
		if b.Login {
			notes = append(notes, w.say("budget login"))
		} else {
			notes = append(notes, w.say("budget host"))
		}
		if b.Reset.After(l.At) {
			notes = append(notes, w.say("budget reset", w.span(b.Reset.Sub(l.At))))
		}
		f.Note = strings.Join(notes, " · ")
		figures = append(figures, f)
	}
	return figures
}

func rank(b Budget) int {
	if b.Registry == dockerHub {
		return 0
	}
	return 1
}

func stored(l Live, w words) figure {
	f := figure{Title: w.say("cache"), Big: size(l.Stored), Note: w.say("cache off")}
	if l.Room > 0 {
		f.Share = percent(l.Stored, l.Room)
		f.Note = w.say("cache note", size(l.Room))
		f.Label = w.say("cache chart", size(l.Stored), size(l.Room))
	}
	return f
}

func traffic(l Live, w words) trafficChart {
	stored, fetched := totals(l)
	c := trafficChart{
		Label: w.say("saved chart", size(stored), size(fetched)),
		Bars:  columns(l.Traffic, func(t Traffic) (int64, int64) { return t.Stored, t.Fetched }),
		Width: 10 * max(len(l.Traffic), 1),
		Empty: stored+fetched == 0,
	}
	var peak int64
	for _, t := range l.Traffic {
		peak = max(peak, t.Stored+t.Fetched)
	}
	if len(l.Traffic) > 0 {
		c.Peak = w.say("peak", size(peak), w.span(time.Hour/time.Duration(len(l.Traffic))))
	}
	return c
}

// columns makes bars of the two numbers that of returns for each slice: the first is the lower part of
// its bar. What is not nothing is at least 2 high, so that it can be seen.
func columns(slices []Traffic, of func(Traffic) (low, high int64)) []bar {
	var most int64
	for _, t := range slices {
		low, high := of(t)
		most = max(most, low+high)
	}
	height := func(n int64) int {
		if n <= 0 {
			return 0
		}
		return max(2, percent(n, most))
	}
	var bars []bar
	for i, t := range slices {
		low, high := of(t)
		b := bar{X: 10*i + 1, Stored: height(low), Fetched: height(high)}
		b.Fetched = min(b.Fetched, 100-b.Stored)
		b.Middle = 100 - b.Stored
		b.Top = b.Middle - b.Fetched
		bars = append(bars, b)
	}
	return bars
}

var imagePrefix = lazyregexp.New(`^(docker\.io/library|[^/]*[.:][^/]*)/`)

func newPullRow(p Pull, now time.Time, w words) pullRow {
	total := p.Stored + p.Fetched
	r := pullRow{
		Engine: p.Engine, Size: size(total), Speed: "–",
		When: w.ago(now, p.Start), Exact: p.Start.UTC().Format(time.RFC3339), Time: seconds(p.Took, w),
	}
	r.Registry, r.Name = splitImage(p.Image)
	switch {
	case p.Failed:
		r.Kind, r.Source = "bad", w.say("failed")
	case p.Checked:
		r.Kind, r.Source, r.Size = "good", w.say("checked"), "–"
	case p.Fetched == 0:
		r.Kind, r.Source = "hit", w.say("stored")
	case p.Stored == 0:
		r.Kind, r.Source = "miss", w.say("fetched")
	default:
		r.Kind, r.Source = "both", w.say("mixed", percent(p.Stored, total))
	}
	if !p.Failed && !p.Checked && p.Took > 0 {
		r.Speed = size(int64(float64(total)/p.Took.Seconds())) + "/s"
	}
	return r
}

// splitImage returns what of an image's name matters less, the registry and "library/" of Docker Hub,
// and the rest.
func splitImage(image string) (registry, name string) {
	i := len(imagePrefix().FindString(image))
	return image[:i], image[i:]
}

func newDownloadRow(d Download, w words) downloadRow {
	r := downloadRow{Engine: d.Engine, Kind: "hit", Source: w.say("from cache"), Progress: size(d.Sent), Share: -1}
	r.Registry, r.Name = splitImage(d.Image)
	if d.From != "" {
		r.Kind, r.Source = "miss", w.say("from server", d.From)
	}
	if d.Size > 0 {
		r.Progress, r.Share = w.say("progress", size(d.Sent), size(d.Size)), percent(d.Sent, d.Size)
	}
	return r
}

// percent returns which part n is of all, rounded to the nearest that does not claim all or nothing.
func percent(n, all int64) int {
	if all <= 0 || n <= 0 {
		return 0
	}
	if n >= all {
		return 100
	}
	return min(99, max(1, int(float64(n)*100/float64(all)+.5)))
}
