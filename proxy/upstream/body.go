package upstream

import (
	"context"
	"io"
	"sync"
	"time"
)

// body is the body of a response. It fails if nothing comes for 30 s, so that another
// upstream can be asked.
type body struct {
	io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
	close  sync.Once
}

func newBody(b io.ReadCloser, cancel context.CancelFunc) io.ReadCloser {
	timer := time.AfterFunc(bodyTimeout, cancel)
	timer.Stop()
	return &body{ReadCloser: b, cancel: cancel, timer: timer}
}

func (b *body) Read(p []byte) (int, error) {
	b.timer.Reset(bodyTimeout)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	return n, err
}

func (b *body) Close() error {
	var err error
	b.close.Do(func() {
		b.timer.Stop()
		err = b.ReadCloser.Close()
		b.cancel()
	})
	return err
}
