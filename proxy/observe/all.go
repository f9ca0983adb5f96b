package observe

// All is an Observer that notifies each of its observers in turn.
type All []Observer

// RequestEnded implements [Observer].
func (a All) RequestEnded(r *Request) {
	for _, o := range a {
		o.RequestEnded(r)
	}
}

// DownloadBegan implements [Observer].
func (a All) DownloadBegan(d *Download) {
	for _, o := range a {
		o.DownloadBegan(d)
	}
}

// DownloadEnded implements [Observer].
func (a All) DownloadEnded(d *Download) {
	for _, o := range a {
		o.DownloadEnded(d)
	}
}

// UpstreamResponded implements [Observer].
func (a All) UpstreamResponded(e Exchange) {
	for _, o := range a {
		o.UpstreamResponded(e)
	}
}

// TokenExchanged implements [Observer].
func (a All) TokenExchanged(upstream string, status int) {
	for _, o := range a {
		o.TokenExchanged(upstream, status)
	}
}

// RateLimited implements [Observer].
func (a All) RateLimited(l RateLimit) {
	for _, o := range a {
		o.RateLimited(l)
	}
}

// ReachChanged implements [Observer].
func (a All) ReachChanged(upstream string, err error) {
	for _, o := range a {
		o.ReachChanged(upstream, err)
	}
}

// SkipChanged implements [Observer].
func (a All) SkipChanged(upstream string, err error) {
	for _, o := range a {
		o.SkipChanged(upstream, err)
	}
}

// Hedged implements [Observer].
func (a All) Hedged(upstream string) {
	for _, o := range a {
		o.Hedged(upstream)
	}
}

// ConnectionsChanged implements [Observer].
func (a All) ConnectionsChanged(upstream string, by int) {
	for _, o := range a {
		o.ConnectionsChanged(upstream, by)
	}
}

// Prefetched implements [Observer].
func (a All) Prefetched(bytes, unused int64) {
	for _, o := range a {
		o.Prefetched(bytes, unused)
	}
}

// Evicted implements [Observer].
func (a All) Evicted(bytes int64, files int) {
	for _, o := range a {
		o.Evicted(bytes, files)
	}
}
