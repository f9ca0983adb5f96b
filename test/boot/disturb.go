package boot

import (
	"fmt"
	"sync"
	"time"
)

// manyPulls is how many run while something happens.
const manyPulls = 20

// during starts many pulls, half by docker and half by CRI, does something when
// the layers of all of them are on their way, and wants every one to succeed. It
// returns how long the slowest took after that. name is a word of its own.
func (m *machine) during(net *internet, name string, do func()) time.Duration {
	m.t.Helper()
	const layer = 1 << 20
	net.slow(layer / 4)
	defer net.slow(0)
	var repositories [manyPulls]string
	for i := range repositories {
		repositories[i] = fmt.Sprintf("acme/%s%d", name, i)
		net.public.Push(m.t, repositories[i], "v1", shape(layer))
	}
	var running sync.WaitGroup
	for i, repository := range repositories {
		p := pullers[i%len(pullers)]
		running.Go(func() {
			began := time.Now()
			if err := p.pull(m, reference(hub, repository)); err != nil {
				m.t.Errorf("%s: pull %d by %s, after %.1f s: %v", name, i, p.name, time.Since(began).Seconds(), err)
			}
		})
	}
	m.eventually("all layers are on their way", func() error {
		if n := net.sending(); n < manyPulls {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	began := time.Now()
	do()
	running.Wait()
	took := time.Since(began)
	ours, direct := 0, 0
	for _, repository := range repositories {
		o, d := net.visits(hub, repository)
		ours, direct = ours+o, direct+d
	}
	m.t.Logf("%s: %d pulls, the last ended %.1f s after it; the registry saw %d requests of ours, %d of the engines' own", name, manyPulls, took.Seconds(), ours, direct)
	return took
}
