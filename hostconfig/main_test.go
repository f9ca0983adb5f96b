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
	if os.Getenv(listenerSocket) != "" {
		os.Exit(listenForEver())
	}
	goleak.VerifyTestMain(m)
}
