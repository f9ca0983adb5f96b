package main

import (
	"github.com/sidemirror/sidemirror/daemon/admin"
	"github.com/sidemirror/sidemirror/internal/portowner"
)

// adminClient returns a client of the daemon that the packages run.
func adminClient() admin.Client {
	c := admin.Client{Socket: admin.Socket}
	if uid, found := portowner.Proxy(); found {
		c.Owners = append(c.Owners, uid)
	}
	return c
}
