// Package harness builds the real sidemirror binary and runs it for tests: a
// configuration in a private folder, a free port of loopback, its own process,
// stopped by its own id.
//
// Every daemon that it starts is checked when it is stopped: it must exit with 0
// on SIGTERM, leave no process of its group behind, and must not have printed any
// secret that it was given.
package harness
