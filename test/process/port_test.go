package process

import (
	"fmt"
	"net"
	"testing"
)

func TestNoTwoTestsGetTheSamePort(t *testing.T) {
	seen := map[int]bool{}
	for range 500 {
		port := FreePort(t)
		if seen[port] {
			t.Fatalf("port %d is given twice", port)
		}
		seen[port] = true
	}
	t.Run("a test that ends", func(t *testing.T) {
		port := FreePort(t)
		t.Cleanup(func() {
			if _, err := net.Listen("unix", fmt.Sprintf("@sidemirror-test-port-%d", port)); err == nil {
				t.Error("the port is free before the test has ended")
			}
		})
	})
}
