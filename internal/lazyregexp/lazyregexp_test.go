package lazyregexp

import "testing"

func TestAnExpressionIsCompiledWhenItIsFirstUsed(t *testing.T) {
	setInTest(t, false)
	digits := New(`^[0-9]+$`)
	if !digits().MatchString("305") || digits().MatchString("port") {
		t.Error("the expression does not match what it should")
	}
	if first, second := digits(), digits(); first != second {
		t.Error("the expression is compiled more than once")
	}
	wrong := New(`(`)
	mustPanic(t, func() { wrong() })
}

func TestInTestsAnExpressionThatIsNotValidIsFoundWithoutUse(t *testing.T) {
	if !inTest {
		t.Fatal("this is not known to be a test")
	}
	mustPanic(t, func() { New(`(`) })
}

func setInTest(t *testing.T, value bool) {
	before := inTest
	inTest = value
	t.Cleanup(func() { inTest = before })
}

func mustPanic(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("an expression that is not valid is taken")
		}
	}()
	f()
}
