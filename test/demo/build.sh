#!/bin/sh
# Builds a program of the demonstration, and shows how far it is: the first time takes minutes.
#
#	test/demo/build.sh NAME FOLDER PACKAGE FLAG…
#
# FOLDER is that of the Go module, and each FLAG one of "go build".
set -eu
name=$1 package=$3
cd "$2"
shift 3

log=$(mktemp)
trap 'rm -f "$log"' EXIT
trap 'exit 1' INT TERM

total=$(go list -deps "$package" | wc -l)
go build -v "$@" "$package" >"$log" 2>&1 &
builder=$!
seconds=0
while kill -0 "$builder" 2>/dev/null; do
	built=$(wc -l <"$log")
	text="building $name: $built packages of at most $total, $seconds s"
	if [ -t 1 ]; then
		printf '\r%s' "$text"
	elif [ $((seconds % 10)) = 9 ]; then
		echo "$text"
	fi
	sleep 1
	seconds=$((seconds + 1))
done
[ ! -t 1 ] || printf '\r\033[K'
wait "$builder" || {
	cat "$log" >&2
	exit 1
}
