#!/bin/sh
# Builds a release in a folder that a web server can publish as it is:
#
#	SIGNING_KEY=key.asc REPOSITORY_URL=https://packages.example packaging/release.sh [FOLDER]
#
#	sidemirror_*.deb, sidemirror-*.rpm   the packages; the rpms are signed
#	sidemirror_*.cdx.json                what is in each binary (SBOM, CycloneDX)
#	SHA256SUMS, SHA256SUMS.asc           checksums of these, and their signature
#	apt/, rpm/                           signed repositories for apt and for dnf
#	sidemirror.asc, sidemirror.repo      the public key, and the file for dnf
#	sidemirror-archive-keyring_all.deb   installs the key and the source for apt
#
# A second release into the same folder adds to the repositories.
#
#	SIGNING_KEY=     a file with an armored private key without a passphrase
#	REPOSITORY_URL=  where FOLDER will be published
#	VERSION=, COMMIT=, SOURCE_DATE_EPOCH=   as for build.sh
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)

fail() {
	echo "packaging/release.sh: $*" >&2
	exit 1
}

[ -n "${SIGNING_KEY:-}" ] || fail "SIGNING_KEY is not set; name a file with an armored private key (gpg --armor --export-secret-keys ID)"
{ [ -f "$SIGNING_KEY" ] && [ -r "$SIGNING_KEY" ]; } || fail "$SIGNING_KEY cannot be read; it must be an armored private key"
case ${REPOSITORY_URL:-} in
https://?* | http://?*) ;;
*) fail "REPOSITORY_URL is not an http or https URL; set it to where the folder will be published" ;;
esac
for pair in reprepro:reprepro createrepo_c:createrepo-c gpg:gnupg rpmsign:rpm; do
	command -v "${pair%%:*}" >/dev/null || fail "${pair%%:*} is missing; install the package ${pair#*:}"
done

mkdir -p "${1:-$here/../dist/release}"
out=$(cd "${1:-$here/../dist/release}" && pwd)
url=${REPOSITORY_URL%/}
VERSION=${VERSION:-$("$here/version.sh")}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$("$here/version.sh" --time)}
GOTOOLCHAIN=$("$here/toolchain.sh")
export VERSION SOURCE_DATE_EPOCH GOTOOLCHAIN LC_ALL=C TZ=UTC0

# A keyring of its own: the key never gets into the keyring of the caller.
work=$(mktemp -d)
GNUPGHOME=$work/gnupg
export GNUPGHOME
mkdir -m 700 "$GNUPGHOME"
cleanup() {
	gpgconf --kill all >/dev/null 2>&1 || :
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

quiet() {
	"$@" >"$work/log" 2>&1 || {
		cat "$work/log" >&2
		fail "$1 failed"
	}
}

import_key() {
	quiet gpg --batch --import "$SIGNING_KEY"
	key=$(gpg --batch --with-colons --list-secret-keys | awk -F: '$1 == "fpr" { print $10; exit }')
	[ -n "$key" ] || fail "$SIGNING_KEY has no private key"
	gpg --batch --armor --export "$key" >"$out/sidemirror.asc"
	gpg --batch --export "$key" >"$work/keyring.gpg"
}

# build puts the packages of this version into the release folder.
build() {
	"$here/build.sh" "$work/dist" >/dev/null
	for rpm in "$work"/dist/*.rpm; do
		quiet rpmsign --define "__gpg $(command -v gpg)" \
			--define "_gpg_name $key" --define "_gpg_path $GNUPGHOME" --addsign "$rpm"
	done
	cp "$work"/dist/*.deb "$work"/dist/*.rpm "$out/"
}

# describe writes a bill of materials for the binary of each package.
describe() {
	(cd "$here" && CGO_ENABLED=0 go build -o "$work/cyclonedx-gomod" github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod)
	for arch in amd64 arm64; do
		dpkg-deb --fsys-tarfile "$work/dist/sidemirror_${VERSION}_$arch.deb" | tar -x -C "$work" ./usr/bin/sidemirror
		quiet "$work/cyclonedx-gomod" bin -json -std -noserial -notimestamp -version "$VERSION" \
			-output "$out/sidemirror_${VERSION}_$arch.cdx.json" "$work/usr/bin/sidemirror"
	done
}

# keyring builds the package that installs the key and the source for apt.
keyring() {
	cat >"$work/sidemirror.sources" <<END
Types: deb
URIs: $url/apt
Suites: stable
Components: main
Architectures: amd64 arm64
Signed-By: /usr/share/keyrings/sidemirror-archive-keyring.gpg
END
	sed "s/@VERSION@/$VERSION/" "$here/keyring.yaml" >"$work/keyring.yaml"
	touch -d "@$SOURCE_DATE_EPOCH" "$work/keyring.gpg" "$work/sidemirror.sources"
	(cd "$here" && CGO_ENABLED=0 go build -o "$work/nfpm" github.com/goreleaser/nfpm/v2/cmd/nfpm)
	(cd "$work" && quiet ./nfpm package --config keyring.yaml --packager deb --target "$out/sidemirror-archive-keyring_all.deb")
}

apt_repository() {
	mkdir -p "$out/apt/conf"
	cat >"$out/apt/conf/distributions" <<END
Origin: sidemirror
Label: sidemirror
Suite: stable
Codename: stable
Architectures: amd64 arm64
Components: main
Description: sidemirror, a registry mirror for container hosts
SignWith: $key
END
	for deb in "$out/sidemirror-archive-keyring_all.deb" "$work"/dist/*.deb; do
		quiet reprepro --silent -b "$out/apt" includedeb stable "$deb"
	done
}

dnf_repository() {
	mkdir -p "$out/rpm"
	cp "$work"/dist/*.rpm "$out/rpm/"
	quiet createrepo_c --quiet --update "$out/rpm"
	rm -f "$out/rpm/repodata/repomd.xml.asc"
	quiet gpg --batch --local-user "$key" --armor --detach-sign "$out/rpm/repodata/repomd.xml"
	cat >"$out/sidemirror.repo" <<END
[sidemirror]
name=sidemirror
baseurl=$url/rpm/
enabled=1
gpgcheck=1
repo_gpgcheck=1
gpgkey=$url/sidemirror.asc
END
}

checksums() {
	(cd "$out" && sha256sum sidemirror*"$VERSION"* sidemirror-archive-keyring_all.deb >SHA256SUMS)
	rm -f "$out/SHA256SUMS.asc"
	quiet gpg --batch --local-user "$key" --armor --detach-sign "$out/SHA256SUMS"
}

import_key
build
describe
keyring
apt_repository
dnf_repository
checksums
echo "$out is ready to be published at $url"
