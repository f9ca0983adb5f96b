package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// commandEnv makes the test binary the real command, for what takes a process of
// its own.
const commandEnv = "SIDEMIRROR_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandEnv) != "" {
		_ = os.Unsetenv(commandEnv)
		main()
	}
	goleak.VerifyTestMain(m)
}
