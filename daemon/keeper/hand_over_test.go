package keeper

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/sidemirror/sidemirror/daemon/handover"
	"github.com/sidemirror/sidemirror/hostconfig"
	"github.com/sidemirror/sidemirror/hostconfig/engine"
)

func TestPageKnowsTheEnginesAsLongAsTheWatcherRuns(t *testing.T) {
	folder := t.TempDir()
	w := watchConfigured(t, []string{engine.Docker}, "listen = ['127.0.0.1:305']\n[engine]\nhandover_dir = '"+folder+"'\n", map[string]string{daemonJSON: "{}"}, func(k *keeper) {
		k.engines.handOver = func(plan hostconfig.Plan) error { return HandOver(folder, plan) }
	})
	w.until("Docker is handed over as an engine that pulls through sidemirror", func() bool {
		engines, err := handover.ReadEngines(folder)
		return err == nil && len(engines) == 1 && engines[0].Name == "docker" && engines[0].Mirror == "active" && engines[0].HubOnly
	})
	write(t, w.path(daemonJSON), "{}")
	w.until("the repair of Docker's file is handed over", func() bool {
		engines, err := handover.ReadEngines(folder)
		return err == nil && len(engines) == 1 && engines[0].Repairs == 1
	})
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	if engines, err := handover.ReadEngines(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the end of the watcher the engines are %+v, %v", engines, err)
	}
}
