#!/bin/sh
# Makes what is installed next to the binary from what is in this repository:
# manual pages, completions, notices, the packages' changelog and copyright.
#
#	packaging/files.sh BINARY FOLDER
#
# BINARY is a sidemirror that can be executed here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
mkdir -p "$2"
out=$(cd "$2" && pwd)

VERSION=${VERSION:-$("$here/version.sh")}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$("$here/version.sh" --time)}
export VERSION SOURCE_DATE_EPOCH

# The settings of this user must not get into what is made.
unset SIDEMIRROR_CONFIG || :
mkdir -p "$out/man"
rm -f "$out/man/"*
"$binary" man "$out/man"
(cd "$here" && CGO_ENABLED=0 go run ./derive "$out")
for page in "$here"/man/*; do
	sed "s/@VERSION@/$VERSION/; s/@DATE@/$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d)/" "$page" >"$out/man/${page##*/}"
done
for shell in bash zsh fish; do
	"$binary" completion "$shell" >"$out/completion.$shell"
done
gzip -9nc "$out/changelog" >"$out/changelog.gz"
