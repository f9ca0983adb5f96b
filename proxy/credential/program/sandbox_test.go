package program

import (
	"strings"
	"testing"
)

// In the service's own sandbox this is tested by test/boot.
func TestTheHintNamesTheDirectivesThatAreInForce(t *testing.T) {
	before := restrictions
	defer func() { restrictions = before }()
	for i := range restrictions {
		restrictions[i].inForce = func() bool { return i == 1 }
	}
	if hint := SandboxHint(); !strings.Contains(hint, "MemoryDenyWriteExecute=") || strings.Contains(hint, "IPAddressDeny=") {
		t.Errorf("with one directive: %q", hint)
	}
	restrictions[1].inForce = func() bool { return false }
	if hint := SandboxHint(); hint != "" {
		t.Errorf("without a sandbox: %q", hint)
	}
}
