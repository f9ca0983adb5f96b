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

// refresh is how often the bar is drawn, which is less often than a fast disk is read.
const refresh = 100 * time.Millisecond

// progress shows the progress of work of a known size as a bar on a terminal. On anything else it
// shows nothing, and the caller writes lines.
type progress struct {
	mu   sync.Mutex
	bar  *progressbar.ProgressBar // nil without a terminal
	last int64                    // the last tenth that tenth reported
}

// newProgress returns a progress that draws on w. If w is no terminal it shows nothing.
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

// add advances the bar by n bytes.
func (p *progress) add(n int64) {
	if p.bar != nil {
		_ = p.bar.Add64(n) // an error means that the terminal is gone
	}
}

// tenth reports whether another tenth of total is done, for callers that write lines.
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

// end removes the bar. What should stay visible is written as lines.
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

// terminalWidth returns the width of w in columns, or 0 if w is not a terminal that can redraw a line.
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

// fit cuts text to width at its beginning, because names differ at their ends.
func fit(text string, width int) string {
	r := []rune(text)
	if len(r) <= width {
		return text
	}
	return "…" + string(r[len(r)-width+1:])
}
