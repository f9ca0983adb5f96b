package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sidemirror/sidemirror/internal/lazyregexp"
)

// Guests says which networks of this host are served in addition to Listen: those of containers and
// virtual machines. Guests are always anonymous.
type Guests struct {
	// Networks (networks, a list of names of bridges) are the bridges at whose own addresses sidemirror
	// listens, as they come and go. Names may have "*". Default none.
	Networks []string

	// Port (port, from 1 to 65535) is the port there. Default 305.
	Port uint16

	// Logins (logins, a list of names of registries) are the registries whose login sidemirror may use
	// for guests, to have its rate limit. It does so only for images that the registry shows to anyone.
	// Default none.
	Logins []string
}

// networkName is the name of a network interface, at most 15 bytes long, in which "*" stands for any
// characters.
var networkName = lazyregexp.New(`^[A-Za-z0-9_.@*-]{1,15}$`)

func checkNetwork(text string) error {
	switch {
	case strings.Trim(text, "*") == "":
		return wrong(quote(text)+" stands for every network", `write the names of bridges, as "docker0" or "br-*"`)
	case text == "lo":
		return wrong(`"lo" is the loopback interface, which listen is for`, `write the names of bridges, as "docker0" or "br-*"`)
	case !networkName().MatchString(text):
		return wrong(quote(text)+" is not the name of a network interface", `write one as in "ip link", such as "docker0" or "br-*"`)
	}
	return nil
}

func checkLentLogin(text string) error {
	if text == Wildcard {
		return wrong(`"*" stands for every registry`, "write the names of registries, as \"docker.io\"")
	}
	return checkRegistryName(text)
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(strings.ReplaceAll(text, "_", ""), 0, 16)
	if err != nil || n == 0 {
		return 0, wrong(quote(text)+" is not a port", fmt.Sprintf("write a number from 1 to %d", 1<<16-1))
	}
	return uint16(n), nil
}

// checkGuests compares [guests] with the registries.
func (l *loader) checkGuests() {
	for i, name := range l.c.Guests.Logins {
		if l.c.Registry(name) == nil {
			l.complain("guests.logins", i, quote(name)+" is not served to guests, because it has no table", fmt.Sprintf("add [registry.%q]", name))
		}
	}
}
