#!/bin/sh
# Installs what "make files" built, and removes it; the Makefile calls it.
#
#	packaging/install.sh install     copies files, starts and enables nothing
#	packaging/install.sh uninstall   restores the engines' files first
#
#	DESTDIR=          a folder that stands for /; nothing of this host is touched then
#	PREFIX=/usr/local where, except /etc/sidemirror/config.toml
#	BINARY, FILES     what to install: bin/sidemirror, bin/files
set -eu
here=$(cd "$(dirname "$0")" && pwd)
DESTDIR=${DESTDIR:-}
PREFIX=${PREFIX:-/usr/local}
BINARY=${BINARY:-$here/../bin/sidemirror}
FILES=${FILES:-$here/../bin/files}

# systemd reads units below these two prefixes only.
case $PREFIX in
/usr | /usr/local) lib=$PREFIX/lib ;;
*) lib=/usr/local/lib ;;
esac
share=$PREFIX/share
config=/etc/sidemirror/config.toml
folders=$share/sidemirror/installed-folders
tab=$(printf '\t')
units='sidemirror.socket sidemirror-site.socket sidemirror-site-http.socket sidemirror.service sidemirror-hosts.service'

fail() {
	echo "packaging/install.sh: $*" >&2
	exit 1
}

# one prints a line of what is installed: mode, destination, source.
one() {
	printf '%s\t%s\t%s\n' "$@"
}

installed() {
	one 755 "$PREFIX/bin/sidemirror" "$BINARY"
	for unit in $units; do
		one 644 "$lib/systemd/system/$unit" "$here/../systemd/$unit"
	done
	one 644 "$lib/systemd/system-preset/80-sidemirror.preset" "$here/../systemd/sidemirror.preset"
	one 644 "$lib/sysusers.d/sidemirror.conf" "$here/../systemd/sidemirror.sysusers"
	one 644 "$lib/tmpfiles.d/sidemirror.conf" "$here/../systemd/sidemirror.tmpfiles"
	one 644 "$share/bash-completion/completions/sidemirror" "$FILES/completion.bash"
	one 644 "$share/zsh/site-functions/_sidemirror" "$FILES/completion.zsh"
	one 644 "$share/fish/vendor_completions.d/sidemirror.fish" "$FILES/completion.fish"
	one 644 "$share/doc/sidemirror/README.md" "$here/../README.md"
	for page in "$here"/../docs/*.md; do
		one 644 "$share/doc/sidemirror/docs/${page##*/}" "$page"
	done
	for file in "$here"/../docs/prometheus/*; do
		one 644 "$share/doc/sidemirror/docs/prometheus/${file##*/}" "$file"
	done
	one 644 "$share/licenses/sidemirror/LICENSE" "$here/../LICENSE"
	one 644 "$share/licenses/sidemirror/NOTICES" "$FILES/NOTICES"
}

# missing_folders prints the folders of the installation that do not exist yet, with those above them.
missing_folders() {
	{
		installed | cut -f 2
		for page in "$FILES"/man/*; do
			echo "$share/man/man${page##*.}/page"
		done
		echo "$config"
		echo "$folders"
	} | while read -r at; do
		at=${at%/*}
		while [ -n "$at" ] && [ ! -d "$DESTDIR$at" ]; do
			echo "$at"
			at=${at%/*}
		done
	done | sort -u
}

# record adds the folders that "make install" made to the list of those that "make uninstall" removes.
record() {
	install -d -m 755 "$DESTDIR${folders%/*}"
	touch "$DESTDIR$folders"
	all=$(printf '%s\n' "$1" | sort -u - "$DESTDIR$folders")
	printf '%s\n' "$all" >"$DESTDIR$folders"
}

# remove_folders removes the folders that are recorded, innermost first, as far as they are empty.
remove_folders() {
	[ -f "$DESTDIR$folders" ] || return 0
	list=$(sort -r "$DESTDIR$folders")
	rm -f "$DESTDIR$folders"
	printf '%s\n' "$list" | while read -r at; do
		[ -z "$at" ] || rmdir "$DESTDIR$at" 2>/dev/null || :
	done
}

install_files() {
	if [ ! -x "$BINARY" ] || [ ! -r "$FILES/NOTICES" ]; then
		fail "nothing is built yet; run: make files"
	fi
	record "$(missing_folders)"
	installed | while IFS=$tab read -r mode to from; do
		install -D -m "$mode" "$from" "$DESTDIR$to" || exit
	done
	# The units name /usr/bin.
	for unit in $units; do
		sed -i "s|/usr/bin/sidemirror|$PREFIX/bin/sidemirror|g" "$DESTDIR$lib/systemd/system/$unit"
	done
	for page in "$FILES"/man/*; do
		name=${page##*/}
		dir=$DESTDIR$share/man/man${name##*.}
		mkdir -p "$dir"
		gzip -9nc "$page" >"$dir/$name.gz"
		chmod 644 "$dir/$name.gz"
	done
	# The administrator's file stays.
	[ -e "$DESTDIR$config" ] || install -D -m 644 "$here/config.toml" "$DESTDIR$config"
}

next() {
	[ -z "$DESTDIR" ] || return 0
	at=
	[ "$PREFIX" = /usr/local ] || at=" PREFIX=$PREFIX"
	cat <<-END
		installed below $PREFIX. This starts it and configures the engines:

		  systemd-sysusers sidemirror.conf && systemd-tmpfiles --create sidemirror.conf
		  systemctl daemon-reload
		  systemctl enable --now sidemirror.socket sidemirror-hosts.service
		  sidemirror status

		This undoes it: make uninstall$at
	END
}

# give_back stops everything and takes sidemirror's entries out of the engines' files. If that fails,
# the program stays: it is needed for the next try.
give_back() {
	if [ -d /run/systemd/system ]; then
		for unit in $units; do
			if systemctl --quiet is-active "$unit"; then
				systemctl stop "$unit"
			fi
			systemctl --quiet disable "$unit" 2>/dev/null || :
		done
	fi
	"$PREFIX/bin/sidemirror" revert --files-only ||
		fail "not every file was restored, so nothing is removed; do what it says above, and run this again"
	rmdir /var/lib/sidemirror-hosts /var/lib/sidemirror-logins /run/sidemirror-hosts 2>/dev/null || :
}

uninstall_files() {
	if [ -z "$DESTDIR" ] && [ -x "$PREFIX/bin/sidemirror" ]; then
		give_back
	fi
	installed | while IFS=$tab read -r _ to _; do
		rm -f "$DESTDIR$to" || exit
	done
	rm -f "$DESTDIR$share"/man/man1/sidemirror.1.gz "$DESTDIR$share"/man/man1/sidemirror-*.1.gz \
		"$DESTDIR$share"/man/man5/sidemirror-*.5.gz "$DESTDIR$share"/man/man8/sidemirror*.8.gz
	if cmp -s "$here/config.toml" "$DESTDIR$config"; then
		rm -f "$DESTDIR$config"
	fi
	remove_folders
	[ -z "$DESTDIR" ] || return 0
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
	fi
	cat <<-END
		removed. This deletes what is left, including your logins:

		  rm -rf /var/lib/sidemirror /var/lib/sidemirror-logins /var/cache/sidemirror /etc/sidemirror && userdel sidemirror
	END
}

case ${1:-} in
install) install_files && next ;;
uninstall) uninstall_files ;;
*) fail "say install or uninstall" ;;
esac
