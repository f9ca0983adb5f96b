#!/bin/sh
# Gets the container engines of one generation, for test/engine to lay over /usr:
#
#	test/engine/get.sh bookworm|trixie|sid    Debian's, out of its packages
#	test/engine/get.sh built                  the newest, by go build
#
# The last line that it prints is their folder, the lines before are the versions.
# What is there already is not got again. A run that is killed leaves nothing that
# the next one takes for whole.
set -eu

containerd=2.4.2
dockerd=29.7.2
# moby's Go module has version numbers of its own: this one is that dockerd.
moby=v2.0.0-beta.24
here=$(cd "$(dirname "$0")" && pwd)

fail() {
	echo "test/engine/get.sh: $*" >&2
	exit 1
}

# debian unpacks one suite's packages into $1. runc is left out: it needs a newer libc, and no pull
# needs it.
debian() {
	"$here/../debian-packages.sh" "$name" "$1" containerd docker.io
	# On a machine whose /lib is /usr/lib, a package's is that too.
	if [ -d "$1/lib" ]; then
		cp -a "${1:?}/lib/." "$1/usr/lib/"
		rm -r "${1:?}/lib"
	fi
	rm -rf "${1:?}/usr/share"
}

# built builds the newest into $1. containerd can be installed by go; moby's module
# has replace directives and wants a module around it. dockerd as a library has no
# version, and is given the one of its release.
built() {
	export CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off
	mkdir -p "$1/usr/sbin" "$1/etc" "$1/module"
	GOBIN="$1/usr/bin" go install -trimpath -ldflags '-s -w' -tags no_btrfs,no_devmapper,no_zfs \
		github.com/containerd/containerd/v2/cmd/containerd@v$containerd
	(
		cd "$1/module"
		go mod init sidemirror.test/dockerd
		go get github.com/moby/moby/v2/cmd/dockerd@$moby
		go build -trimpath -tags exclude_graphdriver_btrfs \
			-ldflags "-s -w -X github.com/moby/moby/v2/dockerversion.Version=$dockerd" \
			-o "$1/usr/sbin/dockerd" github.com/moby/moby/v2/cmd/dockerd
	) 2>"$1/log" || {
		cat "$1/log" >&2
		fail "dockerd cannot be built"
	}
	# go get says each module that it adds, which is noise where all goes well.
	rm -r "$1/module" "$1/log"
}

versions() {
	"$1/usr/bin/containerd" --version && "$1/usr/sbin/dockerd" --version
}

name=${1:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sidemirror-test/engines
case $name in
bookworm | trixie | sid)
	folder=$cache/$name
	command -v apt-get >/dev/null || fail "Debian's engines need apt-get, which is not here"
	;;
built)
	folder=$cache/containerd-$containerd-dockerd-$dockerd
	command -v go >/dev/null || fail "go is not in PATH"
	;;
*) fail "which engines? bookworm, trixie, sid or built" ;;
esac

mkdir -p "$cache"
# One at a time: the second to come finds what the first one got. The lock goes with
# the process that holds it, however that ends.
exec 9>"$cache/.$name.lock"
flock 9
if [ ! -d "$folder" ]; then
	new=$cache/.$name.new
	rm -rf "$new"
	mkdir "$new"
	if [ "$name" = built ]; then built "$new"; else debian "$new"; fi
	versions "$new" >/dev/null || fail "the engines of $name do not run here"
	sync -f "$new"
	mv "$new" "$folder"
fi
versions "$folder"
echo "$folder"
