#!/bin/bash
# All tests of all modules, as "make test" runs them: vet, the unit tests, some
# seconds of each fuzz target, and the tests against real engines, which root can run.
#
#	tools/test.sh         runs all that
#	tools/test.sh fuzz    runs the fuzz targets alone
#	tools/test.sh hosts   runs the tests on hosts with engines alone, of every age
#	                      there is, where the first has the oldest and the newest
#	tools/test.sh boot    runs the tests on booted systems alone, of every suite,
#	                      where the first has trixie
#	tools/test.sh race    runs the daemon itself with the race detector, under the tests
#	                      that load it
#
#	FUZZTIME=3s     how long each fuzz target is run; 0 leaves fuzzing out
#	NOSKIP=1        a skipped test, or one that cannot be run here, is a failure
set -eu -o pipefail
cd "$(dirname "$0")/.."

only=${1:-}
fuzztime=${FUZZTIME:-3s}
noskip=${NOSKIP:-}
say() { printf '\n== %s\n' "$*" >&2; }

case $only in
'' | fuzz | hosts | boot | race) ;;
*)
	say "there are no tests called $only; see the head of $0"
	exit 2
	;;
esac

race=-race engines=yes raced=

prepare() {
	# The race detector needs a C compiler; the product itself is built without one.
	if ! command -v "$(go env CC)" >/dev/null; then
		if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
			say "installing gcc for the race detector"
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends gcc libc6-dev >/dev/null
		else
			say "NO RACE DETECTOR: it needs a C compiler (apt-get install gcc libc6-dev)"
			[ -z "$noskip" ] || exit 1
			race=
		fi
	fi

	say "what the tests run against"
	if [ "$(id -u)" != 0 ]; then
		say "NOT ROOT: what starts containerd or dockerd is skipped (sudo make test)"
		[ -z "$noskip" ] || exit 1
	fi
	if ! test/setup.sh; then
		say "LEFT OUT: the tests against real engines, registries and clients"
		[ -z "$noskip" ] || exit 1
		engines=
	fi
}

# Which packages have fuzz targets, and which: "./folder FuzzName" a line. From
# the sources, for go test -list would build every test for it.
fuzz_targets() {
	grep -rHoE --include='*_test.go' --exclude-dir=testdata '^func Fuzz[A-Za-z0-9_]*' . |
		sed -E 's|/[^/]*:func | |' | sort
}

# go test has a status of its own, but the report judges: it also knows builds that
# broke, tests skipped and runs cut off.
unit() {
	say "vet"
	for module in . test test/credentials/oracle test/hosts/oracle tools bench packaging packaging/cpio; do
		(cd "$module" && go vet ./...) || echo "{\"Action\":\"fail\",\"Package\":\"go vet in $module\"}"
	done
	say "unit tests"
	CGO_ENABLED=${race:+1} go test -json $race -timeout 5m ./... || true
	for module in tools bench packaging; do
		(cd $module && go test -json ./...) || true
	done
	for module in test/credentials/oracle test/hosts/oracle; do
		# Two versions of a library with C cannot be linked into one program.
		(cd $module && CGO_ENABLED=0 go test -json ./...) || true
	done
}

fuzz() {
	fuzz_targets | while read -r dir name; do
		say "$name in $dir for $fuzztime"
		fuzz_one "$dir" "$name"
	done
}

# On a busy machine go test sometimes takes the end of its own fuzz time for a
# failure (golang/go#48591): without a failing input that is no finding, and the
# target is run again, twice at most.
fuzz_one() {
	local out try
	for try in 1 2 3; do
		out=$(cd "$1" && go test -json -run '^$' -fuzz "^$2\$" -fuzztime "$fuzztime" . </dev/null) || true
		if [[ $out != *"context deadline exceeded"* || $out == *"Failing input"* ]]; then
			break
		fi
		say "run $try ended by its own clock"
	done
	printf '%s\n' "$out"
}

# -count=1: what engines do depends on programs that Go's test cache does not see.
# Without the race detector: sidemirror's own code runs in processes of its own here,
# and the engines' clients would be compiled a second time for it.
real() {
	[ -n "$engines" ] || return 0
	product
	say "against real engines: $*"
	(cd test && go test -json -count=1 -timeout 30m "$@") || true
}

# One program for all of these tests, which other users run too. A program with the race
# detector exits with 66 if it has seen a race, which fails the test that stops it.
product() {
	[ -z "${SIDEMIRROR_BINARY:-}" ] || return 0
	say "the program that they test"
	chmod 755 "$report"
	if CGO_ENABLED=$((${raced:+1}+0)) go build ${raced:+-race} -trimpath -o "$report/sidemirror" ./cmd/sidemirror; then
		export SIDEMIRROR_BINARY=$report/sidemirror
	else
		echo '{"Action":"fail","Package":"go build of sidemirror"}'
	fi
}

races() {
	raced=yes
	[ -n "$race" ] || echo '{"Action":"fail","Package":"the race detector needs a C compiler"}'
	# Not those that measure memory, of which the detector takes much.
	real -skip 'BoundedMemory' ./access ./cache ./corpus ./credentials ./distant ./guests ./metrics ./mirrors ./pull ./shared \
		./site ./traces ./transfer ./traps ./visitors ./worker
}

# The booted systems come last and alone: how long a boot takes is among what is tested.
everything() {
	unit
	[ "$fuzztime" = 0 ] || fuzz
	# shellcheck disable=SC2046 # one word a package
	real $(cd test && go list ./... | sed "s|^$(go list -m)|.|" | grep -v '^\./boot$')
	real ./boot
}

report=$(mktemp -d)
trap 'rm -rf "$report"' EXIT
(cd tools && go build -o "$report/testreport" ./testreport)

[ "$only" = fuzz ] || prepare
case $only in
'') everything ;;
fuzz) fuzz ;;
hosts) ENGINES=all real ./hosts ./engine ;;
race) races ;;
boot) SIDEMIRROR_TEST_SUITES="bookworm trixie sid" real ./boot ;;
esac | "$report/testreport" ${noskip:+-noskip}
