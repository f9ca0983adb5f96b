package sdnotify

import (
	"strings"
	"testing"
	"time"

	"github.com/sidemirror/sidemirror/daemon/sdnotify/sdnotifytest"
)

func TestStatusCannotAssignAnotherVariable(t *testing.T) {
	messages := sdnotifytest.Listen(t)
	if err := Status("one\nMAINPID=1\r\ntwo"); err != nil {
		t.Fatal(err)
	}
	if got := <-messages; got != "STATUS=one MAINPID=1 two" {
		t.Errorf("notified %q", got)
	}
}

func TestStoppingAsksForTheTimeItNeeds(t *testing.T) {
	messages := sdnotifytest.Listen(t)
	if err := Stopping(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	if got := <-messages; !strings.HasPrefix(got, "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000\n") {
		t.Errorf("notified %q", got)
	}
}

func TestNotificationsDoNothingWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready("serving"); err != nil || Enabled() {
		t.Errorf("error %v, enabled %v", err, Enabled())
	}
}
