package transfer

import "testing"

func TestTheNumberOfConnectionsGrowsWhileTheyAreOfUse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		link float64 // in connections
		most int
		want int
	}{
		"a saturated link":      {1, 8, 1},
		"room for two":          {2, 8, 4},
		"room for three":        {3, 8, 4},
		"room for many":         {100, 8, 8},
		"room for many, bound":  {100, 3, 3},
		"room for sixteen":      {16, 16, 14},
		"one connection for it": {100, 1, 1},
	} {
		r := newRamp(tt.most)
		for range 10 {
			r.measured(min(tt.link, float64(r.allowed)) * 1e6)
		}
		if r.allowed != tt.want {
			t.Errorf("%s: %d connections, want %d", name, r.allowed, tt.want)
		}
	}
}
