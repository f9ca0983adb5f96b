#!/bin/sh
# Gets the container engines of one generation, for test/engine to lay over /usr:
#
#	test/engine/get.sh bookworm|trixie|sid    Debian's, out of its packages
#	test/engine/get.sh built                  the newest, by go build
#	test/engine/get.sh buildkit               buildkitd and buildctl, by go build
#	test/engine/get.sh nerdctl                nerdctl, by go build
#	test/engine/get.sh trixie-tools           podman, buildah and skopeo of trixie, with all that they need
#
# The last line that it prints is their folder, the lines before are the versions.
# What is there already is not got again. A run that is killed leaves nothing that
# the next one takes for whole.
set -eu

containerd=2.4.2
dockerd=29.7.2
# moby's Go module has version numbers of its own: this one is that dockerd.
moby=v2.0.0-beta.24
buildkit=v0.34.2
nerdctl=v1.7.7
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

# built builds the newest into $1. containerd and ctr can be installed by go; moby's module
# has replace directives and wants a module around it. dockerd as a library has no
# version, and is given the one of its release.
built() {
	export CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off
	mkdir -p "$1/usr/sbin" "$1/etc" "$1/module"
	GOBIN="$1/usr/bin" go install -trimpath -ldflags '-s -w' -tags no_btrfs,no_devmapper,no_zfs \
		github.com/containerd/containerd/v2/cmd/containerd@v$containerd \
		github.com/containerd/containerd/v2/cmd/ctr@v$containerd
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

# tools unpacks trixie's podman, buildah and skopeo into $1, with the libraries of that suite.
tools() {
	mmdebstrap --quiet --mode=root --variant=extract --include=podman,buildah,skopeo \
		--aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' trixie "$1"
	# Only /usr is laid over a host's.
	find "$1" -mindepth 1 -maxdepth 1 ! -name usr -exec rm -rf {} +
	mkdir "$1/etc" "$1/proc"
	for link in bin lib lib64; do ln -s "usr/$link" "$1/$link"; done
}

# buildkit builds buildkitd and buildctl into $1, with a module around theirs, which has replace
# directives.
buildkit() {
	export CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off
	mkdir -p "$1/usr/bin" "$1/etc" "$1/module"
	(
		cd "$1/module"
		go mod init sidemirror.test/buildkitd
		go get github.com/moby/buildkit/cmd/buildkitd@$buildkit
		for program in buildkitd buildctl; do
			go build -trimpath -ldflags "-s -w -X github.com/moby/buildkit/version.Version=$buildkit" \
				-o "$1/usr/bin/$program" github.com/moby/buildkit/cmd/$program
		done
	) 2>"$1/log" || {
		cat "$1/log" >&2
		fail "buildkitd cannot be built"
	}
	rm -r "$1/module" "$1/log"
}

# nerdctl builds nerdctl into $1, with a module around it as for buildkitd.
nerdctl() {
	export CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off
	mkdir -p "$1/usr/bin" "$1/etc" "$1/module"
	(
		cd "$1/module"
		go mod init sidemirror.test/nerdctl
		go get github.com/containerd/nerdctl/cmd/nerdctl@$nerdctl
		go build -trimpath -ldflags "-s -w -X github.com/containerd/nerdctl/pkg/version.Version=$nerdctl" \
			-o "$1/usr/bin/nerdctl" github.com/containerd/nerdctl/cmd/nerdctl
	) 2>"$1/log" || {
		cat "$1/log" >&2
		fail "nerdctl cannot be built"
	}
	rm -r "$1/module" "$1/log"
}

versions() {
	if [ -x "$1/usr/bin/nerdctl" ]; then
		"$1/usr/bin/nerdctl" --version
		return
	fi
	if [ -x "$1/usr/bin/buildkitd" ]; then
		"$1/usr/bin/buildkitd" --version
		return
	fi
	if [ -x "$1/usr/bin/podman" ]; then
		unshare --mount sh -ec 'mount -t proc proc "$1/proc"
			for tool in podman buildah skopeo; do chroot "$1" "/usr/bin/$tool" --version; done' sh "$1"
		return
	fi
	"$1/usr/bin/containerd" --version && "$1/usr/sbin/dockerd" --version
}

name=${1:-}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/sidemirror-test/engines
case $name in
bookworm | trixie | sid)
	folder=$cache/$name
	command -v apt-get >/dev/null || fail "Debian's engines need apt-get, which is not here"
	;;
buildkit)
	folder=$cache/buildkit-$buildkit
	command -v go >/dev/null || fail "go is not in PATH"
	;;
nerdctl)
	folder=$cache/nerdctl-$nerdctl
	command -v go >/dev/null || fail "go is not in PATH"
	;;
trixie-tools)
	folder=$cache/$name
	command -v mmdebstrap >/dev/null || fail "mmdebstrap is not here"
	;;
built)
	folder=$cache/containerd-$containerd-ctr-dockerd-$dockerd
	command -v go >/dev/null || fail "go is not in PATH"
	;;
*) fail "which engines? bookworm, trixie, sid, built, buildkit, nerdctl or trixie-tools" ;;
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
	case $name in
	built) built "$new" ;;
	buildkit) buildkit "$new" ;;
	nerdctl) nerdctl "$new" ;;
	trixie-tools) tools "$new" ;;
	*) debian "$new" ;;
	esac
	versions "$new" >/dev/null || fail "the engines of $name do not run here"
	sync -f "$new"
	mv "$new" "$folder"
fi
versions "$folder"
echo "$folder"
