package health

import (
	"slices"
	"time"

	"github.com/sidemirror/sidemirror/internal/problem"
)

// kinds are the kinds of problems that the daemon reports about itself.
var kinds = []Kind{
	{Code: "no-configuration", Title: "every request is refused", Severity: Error, Logged: true},
	{Code: "configuration-not-in-force", Title: "the configuration on disk cannot be used", Severity: Error, Logged: true, DependsOn: []problem.Code{"no-configuration"}},
	{Code: "port-unprivileged", Title: "any user can take the port", Severity: Error, Logged: true},
	{Code: "guests-not-served", Title: "guests are not served", Severity: Error, Logged: true},
	{Code: "guests-not-a-bridge", Title: "guests are not served on an interface that is no bridge", Severity: Error, Logged: true},
	{Code: "guests-port-privileged", Title: "guests are not served, for want of a capability", Severity: Error, Logged: true},
	{Code: "guests-port-taken", Title: "guests are not served, because the port is taken", Severity: Error, Logged: true},
	{Code: "guests-too-many", Title: "guests of some bridges are not served", Severity: Error, Logged: true},
	{Code: "site-not-served", Title: "the site is not served", Severity: Error, Visible: 5 * time.Second},
	{Code: "site-http-taken", Title: "the site is served by https alone", Severity: Note},
	{Code: "site-without-name", Title: "the site has no name", Severity: Error},
	{Code: "site-terms", Title: "the terms of the ACME server were not accepted", Severity: Error},
	{Code: "site-certificate-missing", Title: "the site has no certificate", Severity: Error, Visible: 20 * time.Second},
	{Code: "site-certificate-unreadable", Title: "the certificate of the site cannot be read", Severity: Error},
	{Code: "site-certificate-expired", Title: "the certificate of the site is not valid now", Severity: Error},
	{Code: "site-certificate-name", Title: "the certificate of the site is for other names", Severity: Error},
	{Code: "site-certificate-old", Title: "the certificate of the site was not renewed", Severity: Warning},
	{Code: "site-users-unreadable", Title: "the users of the site cannot be read", Severity: Error},
	{Code: "name-server-denied", Title: "the name server cannot be reached", Severity: Error, Logged: true},
	{Code: "cache-missing", Title: "nothing is stored", Severity: Error, Logged: true},
	{Code: "cache-read-only", Title: "nothing new is stored", Severity: Error},
	{Code: "cache-disk-full", Title: "nothing new is stored, because the disk is full", Severity: Error, Logged: true},
	{Code: "shared-store-unusable", Title: "nothing is shared with other hosts", Severity: Error, Logged: true},
	{Code: "shared-store-refused", Title: "the shared store refuses this host", Severity: Error},
	{Code: "shared-store-no-bucket", Title: "the shared store's bucket does not exist", Severity: Error},
	{Code: "shared-store-clock", Title: "the shared store's clock and this host's differ", Severity: Error},
	{Code: "shared-store-wrong-content", Title: "the shared store has wrong content", Severity: Error},
	{Code: "shared-store-unreachable", Title: "the shared store cannot be reached", Severity: Warning},
	{Code: "shared-store-slow", Title: "the shared store is slow", Severity: Warning},
	{Code: "shared-store-full", Title: "the shared store is full", Severity: Warning},
	{Code: "shared-store-read-only", Title: "the shared store takes no uploads", Severity: Warning},
	{Code: "state-unwritable", Title: "the configuration in force cannot be stored", Severity: Error, Logged: true},
	{Code: "credentials-unreadable", Title: "logins cannot be read", Severity: Error, Logged: true},
	{Code: "login-refused", Title: "a login was refused", Severity: Error},
	{
		Code: "upstream-unreachable", Title: "a registry or its mirror cannot be reached", Severity: Warning, Logged: true,
		Visible: 20 * time.Second, DependsOn: []problem.Code{"name-server-denied"},
	},
	{
		Code: "upstream-skipped", Title: "a mirror is skipped because another one is faster", Severity: Note,
		Visible: 20 * time.Second,
	},
	{Code: "rate-limit-used-up", Title: "a registry serves no more requests for now", Severity: Warning},
	{Code: "metrics-unavailable", Title: "the metrics are not served", Severity: Error},
	{Code: "traces-misconfigured", Title: "no traces are sent", Severity: Error},
	{Code: "traces-not-received", Title: "traces are lost", Severity: Warning},
	{Code: "trust-by-user-alone", Title: "a caller's user alone decides whether it is trusted", Severity: Note, Logged: true},
}

// Kinds returns the kinds of problems that have a code of their own. A source may report others,
// such as those of credential helpers, which are errors and shown at once.
func Kinds() []Kind { return slices.Clone(kinds) }

// kindOf returns the kind of a code.
func kindOf(code problem.Code) Kind {
	for _, k := range kinds {
		if k.Code == code {
			return k
		}
	}
	// The sources of credentials log what they report.
	return Kind{Code: code, Title: "logins cannot be read", Severity: Error, Logged: true}
}
