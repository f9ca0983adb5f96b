#!/bin/sh
# Installs what this module measures against: nginx and wrk from Debian, the
# registry by go install. A second run changes nothing. No service is started.
set -eu

# The same folder and version as in tools.go.
bin=${XDG_CACHE_HOME:-$HOME/.cache}/sidemirror-bench/bin
distribution=v3.1.2

# Debian keeps daemons in /usr/sbin, which is not in an ordinary user's PATH.
PATH=$PATH:/usr/sbin:/sbin

fail() {
	echo "bench/setup.sh: $*" >&2
	exit 1
}

packages=
command -v nginx >/dev/null || packages="$packages nginx-light"
command -v wrk >/dev/null || packages="$packages wrk"
if [ -n "$packages" ]; then
	command -v apt-get >/dev/null || fail "install by hand:$packages"
	[ "$(id -u)" = 0 ] || fail "cannot install$packages: not root; run: sudo bench/setup.sh"
	# Keeps Debian from starting nginx's service, which would take port 80.
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT INT TERM
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
	fi
	apt-get update -qq
	# shellcheck disable=SC2086 # one word a package
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages >/dev/null
fi

if [ "$(go version -m "$bin/registry" 2>/dev/null | awk '$1 == "mod" { print $3 }')" != "$distribution" ]; then
	echo "building distribution $distribution, which takes a minute or two" >&2
	GOBIN=$bin GOFLAGS= CGO_ENABLED=0 go install "github.com/distribution/distribution/v3/cmd/registry@$distribution"
fi
