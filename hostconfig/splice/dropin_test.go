package splice

import (
	"bytes"
	"strings"
	"testing"
)

var allowances = DropIn{Allow: []Allowance{
	{Why: "a credential helper is configured", Addresses: []string{"169.254.169.254", "169.254.170.2"}},
	{Why: "the host's name server", Addresses: []string{"fe80::1"}},
	{Why: "guests", Capability: "CAP_NET_BIND_SERVICE"},
}}

func TestADropInIsAFileOfItsOwn(t *testing.T) {
	t.Parallel()
	got, err := allowances.Add("f", nil)
	want := FileMark + `
[Service]
# a credential helper is configured
IPAddressAllow=169.254.169.254 169.254.170.2
# the host's name server
IPAddressAllow=fe80::1
# guests
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
# guests
AmbientCapabilities=CAP_NET_BIND_SERVICE
`
	if err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	if !allowances.Settled("f", got) || (DropIn{allowances.Allow[:1]}).Settled("f", got) || allowances.Settled("f", nil) {
		t.Error("settled is wrong")
	}
	if r := RemoveDropIn(got); !r.Found || !r.Bare || len(r.Rest) != 0 {
		t.Errorf("removed: %+v", r)
	}
}

func TestWhatAnAdministratorAddsToTheDropInStays(t *testing.T) {
	t.Parallel()
	own, err := allowances.Add("f", nil)
	if err != nil {
		t.Fatal(err)
	}
	for added, want := range map[string]string{
		"MemoryMax=1G\n":                      "[Service]\nMemoryMax=1G\n",
		"\n[Unit]\nAfter=x.service\n":         "\n[Unit]\nAfter=x.service\n",
		"# mine\nEnvironment=A=b\n[Unit]\n":   "[Service]\n# mine\nEnvironment=A=b\n[Unit]\n",
		"IPAddressAllow=10.0.0.0/8\n":         "[Service]\nIPAddressAllow=10.0.0.0/8\n",
		"AmbientCapabilities=CAP_KILL\n":      "[Service]\nAmbientCapabilities=CAP_KILL\n",
		"[Service]\nIPAddressDeny=10.0.0.1\n": "[Service]\nIPAddressDeny=10.0.0.1\n",
	} {
		r := RemoveDropIn(append(bytes.Clone(own), added...))
		if !r.Found || r.Bare || string(r.Rest) != want {
			t.Errorf("%q: %+v %q", added, r, r.Rest)
		}
		again, err := allowances.Add("f", r.Rest)
		if err != nil || !strings.HasSuffix(string(again), want) || !allowances.Settled("f", again) {
			t.Errorf("%q: added again: %v\n%s", added, err, again)
		}
	}
}

func TestAFileThatIsNotSidemirrorsHasNoEntry(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[Service]\nIPAddressAllow=any\n", "# x\n" + FileMark + "\n", FileMark} {
		if r := RemoveDropIn([]byte(text)); r.Found || string(r.Rest) != text {
			t.Errorf("%q: %+v", text, r)
		}
	}
	for _, text := range []string{"IPAddressAllow=any\n", "# why\nIPAddressAllow=any\n", FileMark + "\n[Service]\n"} {
		if out, err := allowances.Add("f", []byte(text)); err == nil {
			t.Errorf("%q became %q", text, out)
		}
	}
}

func FuzzDropIn(f *testing.F) {
	f.Add([]byte("[Service]\nMemoryMax=1G\n"))
	f.Add([]byte("# why\nIPAddressAllow=any\n"))
	f.Add([]byte("\n\n# x\n[Unit]\r\n"))
	f.Fuzz(func(t *testing.T, base []byte) {
		out, err := allowances.Add("f", base)
		if err != nil {
			wantProblem(t, err)
			return
		}
		if !allowances.Settled("f", out) {
			t.Errorf("not settled: %q", out)
		}
		if r := RemoveDropIn(out); !r.Found || !bytes.Equal(r.Rest, base) {
			t.Errorf("%q became %q and then %q", base, out, r.Rest)
		}
	})
}
