package version

import "testing"

func TestVersionsAsTheyArePrinted(t *testing.T) {
	for said, want := range map[string]string{
		"Docker version 28.5.2, build ecc6942":                               "28.5.2",
		"Docker version 20.10.24+dfsg1, build 297e128":                       "20.10.24",
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1":  "1.6.20",
		"containerd github.com/containerd/containerd/v2 v2.1.9 4fd1e8e":      "2.1.9",
		"containerd containerd.io 1.7.24 88bf19b2105c8b17560993bee28a01ddc2": "1.7.24",
		"nerdctl version 2.2.0":                                              "2.2.0",
		"5:28.5.2-1~debian.12~bookworm":                                      "28.5.2",
		"nothing":                                                            "",
	} {
		if got := Find(said); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
}

func TestComparison(t *testing.T) {
	for _, test := range []struct {
		said         string
		major, minor int
		want         bool
	}{
		{"29.1.0", 29, 1, true}, {"29.0.4", 29, 1, false}, {"30.0.0", 29, 1, true}, {"28.9.9", 29, 1, false}, {"", 0, 1, false}, {"2.10.0", 2, 9, true},
	} {
		if got := Parse(test.said).AtLeast(test.major, test.minor); got != test.want {
			t.Errorf("%s is at least %d.%d: %v", test.said, test.major, test.minor, got)
		}
	}
	if Parse("").Known() || !Parse("1.6.0").Known() {
		t.Error("the empty version is known, or 1.6.0 is not")
	}
}

func TestVersionOfAnInstalledPackage(t *testing.T) {
	const status = "Package: docker.io\nStatus: deinstall ok config-files\nVersion: 20.10.1\n\nPackage: docker-ce\nStatus: install ok installed\nVersion: 5:27.3.1-1\n\n" +
		"Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1+deb12u1\n"
	for want, packages := range map[string][]string{"27.3.1": {"docker-ce", "docker.io"}, "1.6.20": {"containerd"}, "": {"docker.io"}} {
		if got := Package([]byte(status), packages...); got != want {
			t.Errorf("%q: %q", packages, got)
		}
	}
}
