package main

import (
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidemirror/sidemirror/proxy/cache"
	"github.com/sidemirror/sidemirror/proxy/cache/inventory"
)

func newCacheVerifyCommand(f *cacheFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "verify",
		Short: "Read everything that is stored, and remove what is damaged",
		Long: `Read every file of the cache and compare it with its digest. Damaged files are listed
and removed, so that the daemon fetches them again when an engine asks for them; the
exit code is then 1. The command reads as fast as the disk can. The daemon may be
running.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			d, err := f.open()
			if err != nil {
				return err
			}
			defer d.Close()
			return f.verify(cmd, d)
		},
	}
}

func (f *cacheFlags) verify(cmd *cobra.Command, d *cache.Dir) error {
	// After a signal, print what was found until then.
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	begun := time.Now()
	var shown *progress
	var before int64
	v, err := inventory.Verify(ctx, d, func(done, total int64) {
		if shown == nil {
			shown = newProgress(cmd.ErrOrStderr(), total, "verifying")
		}
		shown.add(done - before)
		before = done
		if shown.bar == nil && !f.asJSON && shown.tenth(done, total) {
			fmt.Fprintf(cmd.OutOrStdout(), "%3d %%  %s of %s\n", 100*done/max(total, 1), bytesText(done), bytesText(total))
		}
	})
	if shown != nil {
		shown.end()
	}
	if v == nil {
		return fmt.Errorf("reading the cache: %w", explainStore(err))
	}
	if writeErr := f.writeVerified(cmd, v, time.Since(begun)); writeErr != nil {
		return writeErr
	}
	switch {
	case err != nil:
		return fmt.Errorf("verifying the cache: %w", explainStore(err))
	case len(v.Wrong) > 0:
		return fmt.Errorf("%s damaged and removed; the daemon fetches them again when an engine asks", several(len(v.Wrong), "file"))
	}
	return nil
}

func (f *cacheFlags) writeVerified(cmd *cobra.Command, v *inventory.Verified, took time.Duration) error {
	w := cmd.OutOrStdout()
	if f.asJSON {
		type wrong struct {
			Path string `json:"path"`
			Why  string `json:"reason"`
		}
		out := struct {
			Files int     `json:"files"`
			Bytes int64   `json:"bytes"`
			Wrong []wrong `json:"damaged"`
		}{v.Files, v.Bytes, []wrong{}}
		for _, bad := range v.Wrong {
			out.Wrong = append(out.Wrong, wrong{bad.Path, bad.Why.Error()})
		}
		return writeJSON(w, out)
	}
	for _, bad := range v.Wrong {
		fmt.Fprintf(w, "damaged  %s: %s\n", printable(bad.Path), printable(bad.Why.Error()))
	}
	rate := int64(float64(v.Bytes) / max(took.Seconds(), 1e-3))
	_, err := fmt.Fprintf(w, "read %s, %s, in %v (%s/s)\n", several(v.Files, "file"), bytesText(v.Bytes), took.Round(time.Millisecond), bytesText(rate))
	return err
}
