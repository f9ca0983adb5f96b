package daemon

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(handedOverChild) != "" {
		os.Exit(child())
	}
	goleak.VerifyTestMain(m)
}
