package config

import (
	"fmt"
	"strings"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

var (
	// helperHost is a host name whose labels may have wildcards, perhaps with a port.
	helperHost = lazyregexp.New(`^[a-z0-9*_-]+(\.[a-z0-9*_-]+)*(:[0-9]{1,5})?$`)
	helperName = lazyregexp.New(`^[a-z0-9][a-z0-9._-]{0,63}$`)
	envName    = lazyregexp.New(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// CutHelper splits an element of credentials.helpers into the registries' pattern and the helper.
func CutHelper(text string) (pattern, helper string) {
	pattern, helper, _ = strings.Cut(text, "=")
	return pattern, helper
}

func checkHelper(text string) error {
	pattern, helper := CutHelper(text)
	name, prefixed := strings.CutPrefix(helper, "docker-credential-")
	switch {
	case prefixed:
		return wrong(quote(text)+" has the name of the program", fmt.Sprintf("write %q", pattern+"="+name))
	case !strings.Contains(text, "="):
		return wrong(quote(text)+" has no \"=\"", `write HOST=NAME, as "gcr.io=gcr" for docker-credential-gcr`)
	case strings.Trim(pattern, "*.") == "":
		return wrong(quote(text)+" stands for every registry", "name the registries that the helper is for: some helpers return their token for any")
	case !helperHost().MatchString(pattern):
		return wrong(quote(text)+" does not begin with the host of a registry", `write HOST=NAME, as "*.azurecr.io=acr-env"`)
	case !helperName().MatchString(helper):
		return wrong(quote(text)+" does not end with the name of a helper", "write NAME of docker-credential-NAME, in lower case")
	}
	return nil
}

func checkVariable(text string) error {
	if name, _, assigned := strings.Cut(text, "="); assigned {
		return wrong("a variable is set, and \"config show\" would print its value", fmt.Sprintf("write %q here, and set it with \"systemctl edit sidemirror.service\"", name))
	}
	if !envName().MatchString(text) {
		return wrong(quote(text)+" is not the name of a variable", `write one such as "AWS_PROFILE"`)
	}
	return nil
}
