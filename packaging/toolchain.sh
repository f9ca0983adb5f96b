#!/bin/sh
# Prints the Go toolchain that go.mod pins, such as go1.26.8. With GOTOOLCHAIN set to it every Go from
# 1.21 on fetches and runs that toolchain, so that the same commit gives the same bytes.
set -eu
sed -n 's/^toolchain //p' "$(dirname "$0")/../go.mod"
