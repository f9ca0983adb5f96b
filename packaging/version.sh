#!/bin/sh
# Prints the version that packages and binaries are stamped with, from git:
#
#	0.2.0                                   the tag v0.2.0
#	0.2.0~rc1                               the tag v0.2.0-rc1
#	0.2.0+git20261124020130.abc1234         later than v0.2.0
#	0.1.0~git20261124020130.abc1234         before there is any tag
#	0.2.0+git20261124020130.abc1234.dirty   with changes that are not committed
#
# dpkg and rpm both sort these in the order in which they came about: "~" is before
# the release and "+" after it, and the time is the commit's, in UTC. Out of a
# tree without git: the newest version of CHANGELOG.md, with "+local".
#
#	packaging/version.sh --time     prints that time in seconds since 1970
#	packaging/version.sh --commit   prints the commit, and nothing where there is none
set -eu
cd "$(dirname "$0")/.."

# The first release, until a tag says so.
first=0.1.0

git_here() {
	[ -e .git ] && git rev-parse --verify --quiet HEAD >/dev/null 2>&1
}

if [ "${1:-}" = --time ]; then
	if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
		echo "$SOURCE_DATE_EPOCH"
	elif git_here; then
		git log -1 --format=%ct
	else
		stat -c %Y CHANGELOG.md
	fi
	exit
fi

if [ "${1:-}" = --commit ]; then
	if git_here; then
		git rev-parse HEAD
	fi
	exit
fi

if ! git_here; then
	released=$(sed -nE 's/^## \[([0-9][0-9.]*)\].*/\1/p' CHANGELOG.md | head -n 1)
	echo "${released:-$first~}+local" | sed 's/~+/~/'
	exit
fi

dirty=
git diff --quiet HEAD -- || dirty=.dirty
tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || :)
base=$(echo "${tag#v}" | sed 's/-/~/; s/-/./g')
at=$(TZ=UTC0 git log -1 --date=format-local:%Y%m%d%H%M%S --format=git%cd.%h --abbrev=7)
if [ -z "$tag" ]; then
	echo "$first~$at$dirty"
elif [ "$(git rev-list -n 1 "$tag")" != "$(git rev-parse HEAD)" ]; then
	echo "$base+$at$dirty"
else
	echo "$base${dirty:++dirty}"
fi
