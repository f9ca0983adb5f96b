package main

import "fmt"

// bootedEngines are the engines that pull in test/boot while something befalls sidemirror.
var bootedEngines = []string{"docker", "cri", "podman", "buildah", "skopeo", "buildkit"}

// bootedFaults are what befalls it, and how many seconds a pull may then take longer than a direct one
// at most, by whichever engine.
var bootedFaults = []struct {
	name, what string
	most       float64
}{
	{"stopped", "sidemirror is stopped", 1},
	{"killed", "the proxy is killed", 1},
	{"hung", "the proxy hangs", 1},
	{"full", "the disk is full", 1},
	{"upstream-fails", "the registry sends errors to sidemirror alone", 1},
	{"upstream-breaks-off", "the registry breaks off layers for sidemirror alone", 1},
	{"upstream-hangs", "the registry hangs for sidemirror alone", 26}, // header_timeout is 25 s
}

// longer is the name of the figure of a fault and an engine.
func longer(fault, engine string) string { return "longer-" + fault + "-" + engine }

// judgeFaults judges the slowest engine for each fault.
func judgeFaults(r *report, seen map[string]float64) error {
	for _, f := range bootedFaults {
		worst, engine := 0.0, ""
		for _, e := range bootedEngines {
			value, ok := seen[longer(f.name, e)]
			if !ok {
				return fmt.Errorf("the benchmarks of test/boot printed no %s", longer(f.name, e))
			}
			if value > worst || engine == "" {
				worst, engine = value, e
			}
		}
		r.judge(worst <= f.most, "a pull while "+f.what+", longer than a direct one", fmt.Sprintf("%g s", f.most), fmt.Sprintf("%.2f s (%s)", worst, engine))
	}
	return nil
}
