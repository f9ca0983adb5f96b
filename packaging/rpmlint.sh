#!/bin/sh
# Runs rpmlint on packages, with the rpmlint.toml in this folder.
#
#	packaging/rpmlint.sh PACKAGE…
#
# The names in the payload that nfpm writes begin with "/", not "./" as those of rpmbuild. rpm accepts
# both. rpmlint unpacks with "cpio -id", which then writes to this host, if it runs as root, and
# rpmlint finds nothing where it looks. This cpio has the option that prevents it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cpio=$(command -v cpio)
shim=$(mktemp -d)
trap 'rm -rf "$shim"' EXIT
printf '#!/bin/sh\nexec %s --no-absolute-filenames "$@"\n' "$cpio" >"$shim/cpio"
chmod 755 "$shim/cpio"
PATH=$shim:$PATH rpmlint --config "$here/rpmlint.toml" "$@"
