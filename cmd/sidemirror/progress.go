package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// refresh is how often a bar is drawn: not for every read of a fast disk.
const refresh = 100 * time.Millisecond

// progress shows how far something of a known size is: a bar on a terminal; elsewhere
// nothing, and who uses it writes lines.
type progress struct {
	mu   sync.Mutex
	bar  *progressbar.ProgressBar // nil without a terminal
	last int64                    // tenths that tenth has told
}

// newProgress begins one. Where w is no terminal it shows nothing.
func newProgress(w io.Writer, total int64, what string) *progress {
	p := &progress{}
	width := terminalWidth(w)
	if width == 0 {
		return p
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(fit(what, width/3)),
		progressbar.OptionShowBytes(true),
		progressbar.OptionUseIECUnits(true),
		progressbar.OptionSetWidth(max(width/4, 8)),
		progressbar.OptionThrottle(refresh),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionEnableColorCodes(false),
	}
	p.bar = progressbar.NewOptions64(max(total, 1), options...)
	return p
}

// add moves it on by n bytes.
func (p *progress) add(n int64) {
	if p.bar != nil {
		_ = p.bar.Add64(n) // a terminal that is gone is nobody's loss
	}
}

// tenth reports whether a tenth more of total is done, for those who write lines.
func (p *progress) tenth(done, total int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := 10 * done / max(total, 1)
	if now == p.last {
		return false
	}
	p.last = now
	return true
}

// end takes the bar away: what is to stay is said in lines.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

// line writes a line that stays, above the bar.
func (p *progress) line(w io.Writer, format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end()
	fmt.Fprintf(w, format+"\n", args...)
}

// terminalWidth is 0 where w is no terminal that can take a line back.
func terminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return max(width, 20)
}

// fit cuts a text to a width, at its beginning: names differ at their ends.
func fit(text string, width int) string {
	r := []rune(text)
	if len(r) <= width {
		return text
	}
	return "…" + string(r[len(r)-width+1:])
}
