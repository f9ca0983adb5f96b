// Package packages builds the packages and examines them: the same bytes from the same sources,
// their files, owners and binaries, the findings of lintian and rpmlint, and "make install". test/boot
// shows that they work on a booted system.
package packages
