package hostconfig

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/sidemirror/sidemirror/hostconfig/containersimage"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
	"github.com/sidemirror/sidemirror/hostconfig/journal"
	"github.com/sidemirror/sidemirror/hostconfig/live"
)

const (
	// tryLimit is for one pull. Engines wait for a registry that does not answer for half a minute.
	tryLimit = 60 * time.Second

	// removeLimit is for the removal of the image, which happens even if the pull was interrupted.
	removeLimit = 20 * time.Second
)

// ErrNoPull says that an engine does not run, or cannot be made to pull from here.
var ErrNoPull = errors.New("it cannot be made to pull an image")

// Try makes an engine of the running host pull an image in the way that its users' pulls take, and
// removes the image again. name is the engine's, or its home's. It returns why the engine could not
// pull, or an error that is [ErrNoPull].
func Try(ctx context.Context, h *Host, name, reference string) error {
	t, err := h.open()
	if err != nil {
		return err
	}
	defer t.Close()
	running := h.running(t)
	if running == nil {
		return ErrNoPull
	}
	var images live.Images
	if name == engine.Podman {
		images = containersimage.ImagesOf(&engine.Host{Tree: t, Journal: journal.Salvage(t), Running: running}, h.run)
	} else {
		images, _ = running.Daemon(ctx, name).(live.Images)
	}
	if images == nil {
		return ErrNoPull
	}
	return try(ctx, images, reference)
}

func try(ctx context.Context, images live.Images, reference string) error {
	pulling, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	err := images.Pull(pulling, reference)
	if errors.Is(err, errors.ErrUnsupported) {
		return ErrNoPull
	}
	removing, cancelRemoval := context.WithTimeout(context.WithoutCancel(ctx), removeLimit)
	defer cancelRemoval()
	removed := images.Remove(removing, reference)
	if err == nil && removed != nil {
		return fmt.Errorf("the image was pulled and cannot be removed: %w", removed)
	}
	return err
}

// run runs a program of the host's. An error has the last line that it printed as an error.
func (h *Host) run(ctx context.Context, program string, args ...string) error {
	t, err := h.open()
	if err != nil {
		return err
	}
	defer t.Close()
	if err := t.Trusted(program); err != nil {
		return err
	}
	failure := capped{left: maxOutput}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{"PATH=/usr/bin:/usr/local/bin:/usr/sbin:/usr/local/sbin", "LC_ALL=C", "HOME=/root"}
	cmd.Dir, cmd.Stderr, cmd.WaitDelay = "/", &failure, time.Second
	if err := cmd.Run(); err != nil {
		if line := lastLine(failure.String()); line != "" {
			return errors.New(line)
		}
		return fmt.Errorf("running %s: %w", program, err)
	}
	return nil
}

// lastLine returns the last line of a text, and at most so much of it that a terminal shows it whole.
func lastLine(text string) string {
	const most = 512
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(text, "")), "\n")
	last := lines[len(lines)-1]
	return last[:min(len(last), most)]
}
