package cache

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"
)

// usageFile holds the account of a process that has ended, so that the next one need not count.
const usageFile = "USAGE"

// promiseStep is how far ahead of what is stored the account on disk is, in bytes: it is written
// again only when the cache has grown by that much.
const promiseStep = 64 << 20

// usage is the content of usageFile. While a process is at work, or after it was killed, Used is
// not what is stored but a bound of it.
type usage struct {
	Exact            bool  `json:"exact"`
	Used             int64 `json:"used"`
	Untrusted        int64 `json:"untrusted"`
	Rounding         int64 `json:"rounding"`
	Records          int64 `json:"records"`
	RecordsUntrusted int64 `json:"records_untrusted"`
}

// loadUsage reads the account. A folder of an earlier version, or a damaged account, must be
// counted before anything is stored.
func (d *Dir) loadUsage(isNew bool) error {
	s := &d.space
	if isNew {
		s.counted, s.exact, d.dirty = true, true, true
		return nil
	}
	var u usage
	err := d.readFile(usageFile, maxRecord, &u)
	var failed *fs.PathError
	if errors.As(err, &failed) && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || u.Used < 0 || u.Untrusted < 0 || u.Rounding < 0 || u.Records < 0 || u.RecordsUntrusted < 0 {
		return nil
	}
	if u.Exact && d.writtenSince(usageFile) {
		return nil
	}
	s.counted, s.exact = true, u.Exact
	s.used, s.usedUntrusted, s.rounding = u.Used, u.Untrusted, u.Rounding
	s.records, s.recordsUntrusted = u.Records, u.RecordsUntrusted
	d.promised = u.Used
	if !u.Exact {
		d.promised = 0 // it is counted soon, and then written
	}
	return nil
}

// writtenSince reports whether something was written into the cache after the account, as an earlier
// version does, which knows of none. Every file is made in the folder of partial files.
func (d *Dir) writtenSince(account string) bool {
	written, err := d.stat(account)
	if err != nil {
		return true
	}
	last, err := d.stat("partial")
	// The account itself was the last file that was made there.
	age := last.used.Sub(written.used)
	return err != nil || age < 0 || age > time.Second
}

// promise makes sure that the account on disk is not below what is stored and reserved: a process
// that is killed must not leave an account that allows more than max_size. The caller holds
// space.mu.
func (d *Dir) promise() error {
	s := &d.space
	if !s.counted || s.used+s.reserved <= d.promised && d.dirty {
		return nil
	}
	most := s.used + s.reserved + promiseStep
	if limit := d.limits.Load().MaxSize; limit > 0 {
		// Not more than max_size, which is the bound anyway.
		most = max(min(s.used+s.reserved+min(promiseStep, limit/64), limit), s.used+s.reserved)
	}
	err := d.writeUsage(usage{
		Used: most, Untrusted: s.usedUntrusted + s.reservedUntrusted, Rounding: s.rounding,
		Records: s.records, RecordsUntrusted: s.recordsUntrusted,
	})
	if err == nil {
		d.promised, d.dirty = most, true
	}
	return err
}

// saveSurvey writes the account that a survey has made, so that a process that ends before it stores
// anything need not be followed by another survey.
func (d *Dir) saveSurvey() {
	s := &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reserved > 0 {
		return // what is promised to them stands
	}
	if d.writeUsage(s.usage()) == nil {
		d.dirty = false
	}
}

// usage returns the exact account. The caller holds mu.
func (s *space) usage() usage {
	return usage{
		Exact: s.exact, Used: s.used, Untrusted: s.usedUntrusted, Rounding: s.rounding,
		Records: s.records, RecordsUntrusted: s.recordsUntrusted,
	}
}

// settleUsage writes the exact account when this process has ended its work.
func (d *Dir) settleUsage() {
	s := &d.space
	s.mu.Lock()
	defer s.mu.Unlock()
	if !d.dirty || !s.counted {
		return
	}
	// If it cannot be written, the bound that is there stays true.
	_ = d.writeUsage(s.usage())
}

func (d *Dir) writeUsage(u usage) error {
	data, err := json.Marshal(u)
	if err != nil {
		return err
	}
	temp := d.partialName("usage")
	f, err := d.createPartial(temp, os.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = d.root.Rename(temp, usageFile)
	}
	if err != nil {
		_ = d.root.Remove(temp)
	}
	return err
}
