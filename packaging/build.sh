#!/bin/sh
# Builds the packages: deb and rpm, for amd64 and arm64, into dist/.
#
#	packaging/build.sh [FOLDER]
#
# The same commit gives the same bytes, wherever and whenever it is built:
#
#	SOURCE_DATE_EPOCH=   the time in them; the commit's if not set
#	VERSION=, COMMIT=    what is stamped on them; version.sh's if not set
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "${1:-$here/../dist}"
dist=$(cd "${1:-$here/../dist}" && pwd)

VERSION=${VERSION:-$("$here/version.sh")}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$("$here/version.sh" --time)}
COMMIT=${COMMIT-$("$here/version.sh" --commit)}
GOTOOLCHAIN=$("$here/toolchain.sh")
export VERSION SOURCE_DATE_EPOCH GOTOOLCHAIN LC_ALL=C TZ=UTC0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

# compile builds the binary for the architecture $1. What git says of the tree
# is not linked in: it differs between a clone and an archive of it.
compile() {
	(cd "$here/.." && CGO_ENABLED=0 GOOS=linux GOARCH="$1" go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" -o "$work/$1/sidemirror" ./cmd/sidemirror)
}

# scripts puts what the maintainer scripts have in common before each.
scripts() {
	mkdir -p "$work/scripts"
	for script in "$here"/scripts/deb-*.sh "$here"/scripts/rpm-*.sh; do
		name=$(basename "$script" .sh)
		cat "$here/scripts/common.sh" "$script" >"$work/scripts/$name"
	done
}

# documents lists for format $1 what is documentation, as nfpm wants it.
documents() {
	(cd "$work/tree" && find usr/share/man usr/share/doc usr/share/licenses -type f | sort) | while read -r file; do
		type=doc
		case $1:$file in
		# Debian has the licences in its own file.
		deb:usr/share/licenses/*) continue ;;
		deb:*) type='file' ;;
		rpm:usr/share/licenses/*) type=license ;;
		esac
		printf '  - {src: "tree/%s", dst: "/%s", type: %s, file_info: {mode: 0644}}\n' "$file" "$file" "$type"
	done
	for dir in usr/share/doc/sidemirror usr/share/doc/sidemirror/docs usr/share/doc/sidemirror/docs/prometheus usr/share/licenses/sidemirror; do
		[ "$1:${dir#usr/share/licenses}" = "deb:/sidemirror" ] ||
			printf '  - {dst: "/%s", type: dir, file_info: {mode: 0755}}\n' "$dir"
	done
}

# package makes the package of format $1 for the architecture $2.
package() {
	documents "$1" >"$work/documents.yaml"
	sed -e "/# @bundled@/r $work/files/bundled.yaml" -e "/# @documents@/r $work/documents.yaml" "$here/nfpm.yaml" >"$work/nfpm.yaml"
	if [ "$1" = rpm ]; then
		# Debian has both in files of its own.
		printf 'changelog: files/changelog.yaml\nlicense: %s\n' "$(cat "$work/files/licence")" >>"$work/nfpm.yaml"
	fi
	# nfpm says also what is wrong on standard output.
	(cd "$work" && ARCH=$2 ./nfpm package --packager "$1" --target "$dist" >nfpm.log 2>&1) ||
		{ cat "$work/nfpm.log" >&2; exit 1; }
}

native=$(go env GOARCH)
(cd "$here" && CGO_ENABLED=0 GOARCH="$native" go build -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm)
for arch in amd64 arm64; do
	compile "$arch"
done
[ -e "$work/$native" ] || compile "$native"
"$here/files.sh" "$work/$native/sidemirror" "$work/files"
cp "$here/lintian-overrides" "$work/"
scripts
for arch in amd64 arm64; do
	rm -rf "$work/tree"
	DESTDIR="$work/tree" PREFIX=/usr BINARY="$work/$arch/sidemirror" FILES="$work/files" "$here/install.sh" install
	find "$work/tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	for format in deb rpm; do
		package "$format" "$arch"
	done
done
ls "$dist"/sidemirror?"$VERSION"*
