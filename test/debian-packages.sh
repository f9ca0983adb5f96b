#!/bin/sh
# Downloads packages of a Debian suite and unpacks them, without installing anything:
#
#	test/debian-packages.sh SUITE FOLDER PACKAGE…
#
# apt gets lists and a cache of its own, so nothing of this machine changes. It uses the machine's
# proxies. DEBIAN_MIRROR= names another mirror.
set -eu
suite=$1 folder=$2
shift 2
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
apt=$folder/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages" "$apt/none"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources"
cat >"$apt/conf" <<-END
	Dir::Etc::sourcelist "$apt/sources";
	Dir::Etc::sourceparts "$apt/none";
	Dir::Etc::preferences "$apt/none/file";
	Dir::Etc::preferencesparts "$apt/none";
	Dir::State::lists "$apt/lists";
	Dir::State::status "/dev/null";
	Dir::Cache "$apt/cache";
	APT::Sandbox::User "root";
	Acquire::Languages "none";
	Acquire::Retries "3";
	DPkg::Lock::Timeout "60";
END
export APT_CONFIG="$apt/conf"
timeout 300 apt-get update -qq
(cd "$apt/packages" && timeout 600 apt-get download -qq "$@")
for package in "$apt/packages"/*.deb; do
	dpkg -x "$package" "$folder"
done
rm -rf "$apt"
