package transfer

import (
	"errors"
	"slices"
)

// outpacedError is an error of a body whose upstream sends it more slowly than another one would: so
// many bytes in a second, and the other one so many.
type outpacedError interface{ Outpaced() (rate, other float64) }

// outpaced returns the rates if err is such an error.
func outpaced(err error) (rate, other float64, ok bool) {
	var e outpacedError
	if !errors.As(err, &e) {
		return 0, 0, false
	}
	rate, other = e.Outpaced()
	return rate, other, other > 0
}

// isSlow reports whether a transfer has ended for a faster upstream. What is present would make the next
// one begin at the slow one.
func isSlow(err error) bool {
	_, _, ok := outpaced(err)
	return ok
}

// isOutpaced reports whether err says that another upstream is faster, and would send the whole in less
// time than this one what is missing. t.mu is held.
func (t *transfer) isOutpaced(err error) bool {
	rate, other, ok := outpaced(err)
	if !ok || t.size < 0 {
		return ok
	}
	return float64(t.size-t.have.Bytes())*other > float64(t.size)*rate
}

// leave makes the stream go on with a faster upstream, if err says that there is one and it would send
// the whole in less time than this one what is missing.
func (m *stream) leave(err error) bool {
	rate, other, ok := outpaced(err)
	if !ok || m.size >= 0 && float64(m.size-m.read)*other <= float64(m.size-m.start)*rate {
		return false
	}
	used := append(slices.Clone(m.used), m.from)
	if len(m.all.candidates(m.want, used)) == 0 {
		return false
	}
	m.used, m.left, m.from, m.resumes, m.unsure = used, m.from, "", 0, m.read > m.start
	return true
}

// comeBack makes the stream ask the slow upstream again that it left, and reports whether there is one:
// slow is better than nothing.
func (m *stream) comeBack() bool {
	if m.left == "" {
		return false
	}
	m.used = slices.DeleteFunc(m.used, func(name string) bool { return name == m.left })
	m.left = ""
	return true
}
