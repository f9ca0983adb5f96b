package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// firstPaint is the time from opening the page at "/" in Chromium to its first paint.
func (b *bench) firstPaint(ctx context.Context) error {
	chromium, errChromium := exec.LookPath("chromium")
	node, errNode := exec.LookPath("node")
	cache, errCache := os.UserCacheDir()
	modules := filepath.Join(cache, "sidemirror-test", "page")
	_, errModules := os.Stat(filepath.Join(modules, "node_modules"))
	if err := errors.Join(errChromium, errNode, errCache, errModules); err != nil {
		return fmt.Errorf("the page needs what test/setup.sh installs: %w", err)
	}
	u, err := newUpstream()
	if err != nil {
		return err
	}
	defer u.close()
	dir, err := os.MkdirTemp(b.dir, "page-")
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	argv, err := b.sidemirror(dir, address, u)
	if err != nil {
		return err
	}
	p, err := spawn(sidemirror, b.logOf(sidemirror), []string{"HOME=" + dir}, argv...)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.ready(ctx, address, "/"); err != nil {
		return err
	}
	times := 20
	if b.quick {
		times = 5
	}
	out, err := exec.CommandContext(ctx, node, "page.mjs", "http://"+address+"/", strconv.Itoa(times), chromium, modules).Output()
	if err != nil {
		return fmt.Errorf("opening the page: %w", err)
	}
	var painted []time.Duration
	for _, field := range strings.Fields(string(out)) {
		ms, err := strconv.ParseFloat(field, 64)
		if err != nil {
			return fmt.Errorf("page.mjs: %w", err)
		}
		painted = append(painted, time.Duration(ms*float64(time.Millisecond)))
	}
	if len(painted) != times {
		return fmt.Errorf("page.mjs measured %d times, not %d", len(painted), times)
	}
	b.tables = append(b.tables, table{
		title: "The page",
		note:  fmt.Sprintf("From opening the page at / in a window of Chromium to its first contentful paint; %d times. The browser stores nothing of it.", times),
		head:  []string{"median", "worst"},
		rows:  [][]string{{millis(median(painted)), millis(slices.Max(painted))}},
	})
	b.judge(median(painted) <= 100*time.Millisecond, "first paint of the page", "100 ms", millis(median(painted)))
	return nil
}
