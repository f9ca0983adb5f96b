#!/bin/sh
# Installs what the tests of this module run against: the engines and the
# registry from Debian, the other clients by go install, and engines of other
# ages into a folder of their own. A second run changes nothing and takes a
# second. No service is started.
#
#	test/setup.sh            installs what is missing, then prints the versions
#	test/setup.sh --check    installs nothing; exit 1 where something is missing
#
#	ENGINES=all     the engines of every age, else the oldest and the newest
set -eu

cd "$(dirname "$0")"

# The same folder as in test/engine/tools.go.
bin=${SIDEMIRROR_TEST_BIN:-${XDG_CACHE_HOME:-$HOME/.cache}/sidemirror-test/bin}
# The same folder as in test/page/page_test.go.
modules=${XDG_CACHE_HOME:-$HOME/.cache}/sidemirror-test/page

minio=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
crane=github.com/google/go-containerregistry/cmd/crane@v0.22.1
regctl=github.com/regclient/regclient/cmd/regctl@v0.11.7
oras=oras.land/oras/cmd/oras@v1.3.6
conformance=github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111
ecr=github.com/awslabs/amazon-ecr-credential-helper/ecr-login/cli/docker-credential-ecr-login@v0.12.0
gcr=github.com/GoogleCloudPlatform/docker-credential-gcr/v2@v2.2.1
acr=github.com/chrismellard/docker-credential-acr-env@v0.0.0-20230304212654-82a0ddb27589

# Debian keeps daemons in /usr/sbin, which is not in an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin

fail() {
	echo "test/setup.sh: $*" >&2
	exit 1
}

# lacking lists the Debian packages whose program is not installed.
lacking() {
	for pair in containerd:containerd runc:runc docker.io:dockerd \
		docker-registry:docker-registry skopeo:skopeo podman:podman buildah:buildah systemd:systemd-analyze \
		rpm:rpm rpm2cpio:rpm2cpio cpio:cpio lintian:lintian rpmlint:rpmlint mandoc:mandoc shellcheck:shellcheck \
		mmdebstrap:mmdebstrap strace:strace systemd-container:systemd-nspawn tinyproxy-bin:tinyproxy \
		golang-docker-credential-helpers:docker-credential-pass chromium:chromium prometheus:promtool nodejs:node npm:npm pass:pass gnupg:gpg gnome-keyring:gnome-keyring-daemon dbus-daemon:dbus-daemon reprepro:reprepro createrepo-c:createrepo_c dnf:dnf zsh:zsh fish:fish pebble:pebble nginx:nginx caddy:caddy; do
		command -v "${pair#*:}" >/dev/null || printf '%s ' "${pair%%:*}"
	done
	[ -e /usr/share/bash-completion/bash_completion ] || printf 'bash-completion '
	# From trixie on the docker command is a package of its own.
	if ! command -v docker >/dev/null && apt-cache show docker-cli >/dev/null 2>&1; then
		printf 'docker-cli '
	fi
}

# install_packages puts in Debian's packages, and keeps them from starting their
# services: the tests start their own daemons, with folders of their own.
install_packages() {
	packages=$(lacking)
	[ -n "$packages" ] || return 0
	command -v apt-get >/dev/null ||
		fail "cannot install $packages: no apt-get here; install them by hand"
	[ "$(id -u)" = 0 ] ||
		fail "cannot install $packages: not root; run: sudo test/setup.sh"
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
	fi
	apt-get update -qq
	# docker-cli is known only now on a machine whose lists were empty.
	packages=$(lacking)
	# shellcheck disable=SC2086 # one word a package
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y \
		--no-install-recommends ca-certificates $packages >/dev/null
}

# installed says whether the program $1 was built from the module version $2.
installed() {
	[ -x "$bin/$1" ] && go version -m "$bin/$1" 2>/dev/null | grep -qF "	$2	"
}

install_programs() {
	mkdir -p "$bin"
	for program in $crane $regctl $oras $conformance $ecr $gcr $acr; do
		path=${program%@*}
		path=${path%/v2}
		installed "${path##*/}" "${program#*@}" && continue
		CGO_ENABLED=0 GOBIN="$bin" GOFLAGS=-mod=mod go install "$program"
	done
	# MinIO is large: its program is smaller, and linked more quickly, without symbols.
	installed minio "${minio#*@}" ||
		CGO_ENABLED=0 GOBIN="$bin" GOFLAGS=-mod=mod go install -ldflags "-s -w" "$minio"
	# The token server has no go.mod: ours pins what it is built from.
	installed token-server v2.8.3+incompatible ||
		CGO_ENABLED=0 go build -o "$bin/token-server" \
			github.com/docker/distribution/contrib/token-server
}

# install_modules gets what test/page runs in a browser, as package-lock.json pins it.
install_modules() {
	cmp -s page/package-lock.json "$modules/package-lock.json" && return 0
	rm -rf "$modules"
	mkdir -p "$modules"
	cp page/package.json page/package-lock.json "$modules"
	(cd "$modules" && npm ci --ignore-scripts --no-audit --no-fund --silent) || {
		rm -rf "$modules"
		fail "the modules of page/package.json cannot be had"
	}
}

# get_engines gets the engines of other ages, which only root can run, and prints
# their versions.
get_engines() {
	[ "$(id -u)" = 0 ] || return 0
	ages="bookworm built"
	[ "${ENGINES:-}" != all ] || ages="bookworm trixie sid built"
	for age in $ages trixie-tools buildkit nerdctl; do
		got=$(engine/get.sh "$age") || fail "the engines of $age cannot be had"
		echo "$got" | sed '$d'
	done
}

versions() {
	containerd --version
	dockerd --version
	docker --version
	runc --version | head -n 1
	docker-registry --version
	skopeo --version
	podman --version
	buildah --version
	for program in crane regctl oras conformance token-server minio; do
		go version -m "$bin/$program" | awk -v name=$program '$1 == "mod" { print name, $3 }'
	done
}

if [ "${1:-}" = --check ]; then
	packages=$(lacking)
	[ -z "$packages" ] || fail "missing: $packages"
	for program in crane regctl oras conformance token-server minio; do
		[ -x "$bin/$program" ] || fail "missing: $bin/$program"
	done
	cmp -s page/package-lock.json "$modules/package-lock.json" || fail "missing: $modules"
	exit 0
fi
command -v go >/dev/null || fail "go is not in PATH"
install_packages
install_programs
install_modules
versions
get_engines
