package config

import (
	"fmt"
	"strings"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// unitName is the name of a unit as in systemd.unit(5), in which "*" stands for any characters.
var unitName = lazyregexp.New(`^[A-Za-z0-9:_.\\@*-]{1,240}\.(service|scope|slice)$`)

func checkUnit(text string) error {
	switch {
	case text == "default" || text == "*" || text == "/":
	case strings.HasPrefix(text, "/") && !strings.HasSuffix(text, "/") && !strings.Contains(text, "//"):
	case strings.HasPrefix(text, "/"):
		return wrong(quote(text)+" is not the path of a control group", `write it as in /proc/PID/cgroup, as "/system.slice/ci.service"`)
	case unitName().MatchString(text+".service") && !unitName().MatchString(text):
		return wrong(quote(text)+" has no type", fmt.Sprintf("write %q", text+".service"))
	case !unitName().MatchString(text):
		return wrong(quote(text)+" is not the name of a unit", `write the name of a service, scope or slice, as "ci.service", or "default"`)
	}
	return nil
}
