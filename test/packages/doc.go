// Package packages builds the packages for real and looks at them: the same bytes from
// the same sources, what is in them and whose, the binaries, what lintian and
// rpmlint say, and "make install". That they work on a booted system is
// shown by test/boot.
package packages
