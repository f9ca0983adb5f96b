package pull_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/sidemirror/sidemirror/test/engine"
	"github.com/sidemirror/sidemirror/test/harness"
	"github.com/sidemirror/sidemirror/test/network"
)

func TestMain(m *testing.M) {
	if err := network.Isolate(func() error { return errors.Join(engine.GetAll(), harness.Build()) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	harness.Main(m)
}
