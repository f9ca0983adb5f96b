package upstream

import (
	"fmt"
	"time"
)

// SkippedError is why an upstream is skipped for a while.
type SkippedError struct {
	Upstream, Other string // as [Upstream.Host] returns them
	Took, Usual     time.Duration
	Silent          bool // it has not responded at all

	// Rate is how many bytes the upstream sends in a second, OtherRate how many the other one. They are
	// 0 if it is skipped for something else.
	Rate, OtherRate float64
}

// Error implements error.
func (e *SkippedError) Error() string {
	switch {
	case e.Silent:
		return fmt.Sprintf("no response after %s, while %s responded", e.Took.Round(time.Millisecond), e.Other)
	case e.OtherRate > 0:
		return fmt.Sprintf("it sends %s, and %s sends %s", perSecond(e.Rate), e.Other, perSecond(e.OtherRate))
	}
	return fmt.Sprintf("it takes %s to respond, and %s takes %s", e.Took.Round(time.Millisecond), e.Other, e.Usual.Round(time.Millisecond))
}

// Outpaced returns the bytes per second of the upstream and of the other one, if that is why.
func (e *SkippedError) Outpaced() (rate, other float64) { return e.Rate, e.OtherRate }

// perSecond returns a rate as a person writes it.
func perSecond(rate float64) string {
	if rate < 1e6 {
		return fmt.Sprintf("%.0f kB/s", rate/1e3)
	}
	return fmt.Sprintf("%.1f MB/s", rate/1e6)
}
