#!/bin/sh
# Runs rpmlint on packages, with the rpmlint.toml of this folder.
#
#	packaging/rpmlint.sh PACKAGE…
#
# The names in the payload that nfpm writes begin with "/", not "./" as rpmbuild's
# do. rpm does not mind, but rpmlint unpacks by "cpio -id", which then writes into this
# host, as root at least, and finds nothing where it looks. So cpio gets another option here.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cpio=$(command -v cpio)
shim=$(mktemp -d)
trap 'rm -rf "$shim"' EXIT
printf '#!/bin/sh\nexec %s --no-absolute-filenames "$@"\n' "$cpio" >"$shim/cpio"
chmod 755 "$shim/cpio"
PATH=$shim:$PATH rpmlint --config "$here/rpmlint.toml" "$@"
