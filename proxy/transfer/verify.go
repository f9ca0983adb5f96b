package transfer

import (
	"hash"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

// prefix hashes a blob from its first byte on while it comes in, so that its verification costs no
// second pass.
type prefix struct {
	digest digest.Digest

	mu  sync.Mutex
	sum hash.Hash
	at  int64 // what is hashed
}

func newPrefix(d digest.Digest) *prefix { return &prefix{digest: d, sum: d.Algorithm().Hash()} }

// feed hashes b, the bytes at off, if they are the next ones. It does not wait.
func (p *prefix) feed(b []byte, off int64) {
	if !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	if off <= p.at && p.at < off+int64(len(b)) {
		b = b[p.at-off:]
		p.sum.Write(b)
		p.at += int64(len(b))
	}
}

// catchUp hashes what r has up to end. Without wait it returns at once if another caller hashes.
func (p *prefix) catchUp(r io.ReaderAt, end int64, wait bool) error {
	if wait {
		p.mu.Lock()
	} else if !p.mu.TryLock() {
		return nil
	}
	defer p.mu.Unlock()
	if p.at >= end {
		return nil
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{p.sum}, io.NewSectionReader(r, p.at, end-p.at), make([]byte, bufferSize))
	p.at += n
	if err == nil && p.at < end {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// behind returns by how much the hash is behind end.
func (p *prefix) behind(end int64) int64 {
	if !p.mu.TryLock() {
		return 0
	}
	defer p.mu.Unlock()
	return end - p.at
}

// verified reports whether what is hashed has the digest.
func (p *prefix) verified() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return digest.NewDigest(p.digest.Algorithm(), p.sum) == p.digest
}
