package pull_test

import (
	"testing"

	"github.com/sidemirror/sidemirror/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
