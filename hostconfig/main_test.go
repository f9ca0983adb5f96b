package hostconfig

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(victimRoot) != "" {
		os.Exit(victim())
	}
	goleak.VerifyTestMain(m)
}
