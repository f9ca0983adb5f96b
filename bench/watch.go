package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// rewrites is how often the script of the figure "watch" rewrites the file.
const rewrites = 1000

// watch is the time in which "sidemirror watch" restores its entry in Docker's daemon.json: after
// another program wrote the file once, and after one that rewrote it again and again.
func (b *bench) watch(ctx context.Context) error {
	root, err := os.MkdirTemp(b.dir, "tree-")
	if err != nil {
		return err
	}
	file := filepath.Join(root, "etc/docker/daemon.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	p, err := spawn(sidemirror, b.logOf(sidemirror), []string{"HOME=" + root}, b.binary, "watch", "--root", root, "--engine", "docker")
	if err != nil {
		return err
	}
	defer p.stop()
	if _, err := restored(ctx, file); err != nil {
		return err
	}
	time.Sleep(time.Second) // until its first pass is over
	times := 4
	if b.quick {
		times = 3
	}
	var once []time.Duration
	var rows [][]string
	for i := range times {
		took, err := b.rewritten(ctx, file, fmt.Sprintf(`{"labels": ["n=%d"]}`, i))
		if err != nil {
			return err
		}
		once = append(once, took)
		rows = append(rows, []string{"once, for the " + []string{"first", "second", "third", "fourth"}[i] + " time", millis(took)})
	}
	for i := range rewrites {
		if err := os.WriteFile(file, fmt.Appendf(nil, `{"labels": ["script=%d"]}`, i), 0o644); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	script, err := restored(ctx, file)
	if err != nil {
		return err
	}
	b.tables = append(b.tables, table{
		title: "Watch",
		note: "From the last write of another program to sidemirror's entry in daemon.json, with \"sidemirror watch --root\". " +
			"It waits until the file has been left alone for 250 ms, and each time twice as long as before.",
		head: []string{"another program writes", "entry restored after"},
		rows: append(rows, []string{fmt.Sprintf("then %d times in a row", rewrites), millis(script)}),
	})
	b.judge(once[0] <= 2*time.Second, "watch restores its entry", "2 s", millis(once[0]))
	return nil
}

// rewritten writes text as another program does, and returns the time until the entry is back.
func (b *bench) rewritten(ctx context.Context, file, text string) (time.Duration, error) {
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return 0, err
	}
	return restored(ctx, file)
}

// restored waits until sidemirror's entry is in the file, and returns how long that took.
func restored(ctx context.Context, file string) (time.Duration, error) {
	begun := time.Now()
	for ctx.Err() == nil && time.Since(begun) < time.Minute {
		data, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		if bytes.Contains(data, []byte("127.0.0.1:305")) {
			return time.Since(begun), nil
		}
		time.Sleep(time.Millisecond)
	}
	return 0, errors.New("watch does not restore its entry in daemon.json")
}
