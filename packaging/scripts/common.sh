#!/bin/sh
# What the maintainer scripts of deb and rpm have in common. build.sh puts this
# before each of them: a package's scripts cannot read files of the package, which
# come before it and go before it does.
#
# Who sources this defines ctl: systemctl, as the administrator's policy has it.
set -e

# The socket unit in force before an upgrade; see remember_socket.
previous=/run/sidemirror.socket.previous
socket_unit=/usr/lib/systemd/system/sidemirror.socket

# Where the journal of the engines' files is.
journal=/var/lib/sidemirror-hosts

# systemd_runs is sd_booted(3): there is none in most containers and chroots.
systemd_runs() {
	[ -d /run/systemd/system ] && command -v systemctl >/dev/null
}

# quiet runs a command and lets it speak only where it fails.
quiet() {
	if said=$("$@" 2>&1); then
		return 0
	fi
	printf 'sidemirror: %s: %s\n' "$*" "$said" >&2
	return 1
}

# make_user makes the user, and its folders where there is a host to have them. By
# their own names, so that files of the same name in /etc are stronger.
make_user() {
	if command -v systemd-sysusers >/dev/null; then
		quiet systemd-sysusers sidemirror.conf || :
	fi
	if systemd_runs && command -v systemd-tmpfiles >/dev/null; then
		quiet systemd-tmpfiles --create sidemirror.conf || :
	fi
}

# remember_socket keeps the socket unit that is about to be replaced. The sockets
# stay open over an upgrade, so that nobody who connects is refused: they are opened
# anew only where what they listen on has changed.
remember_socket() {
	if systemd_runs && [ -r "$socket_unit" ]; then
		cat "$socket_unit" >"$previous" || :
	fi
}

# socket_changed says whether it was replaced by another one, and forgets it.
socket_changed() {
	[ -r "$previous" ] || return 1
	before=$(cat "$previous")
	rm -f "$previous"
	[ "$before" != "$(cat "$socket_unit")" ]
}

# start_all starts what does not run and restarts what does. The daemon has no
# enabled unit of its own; it is started here so that it is known now whether it can
# be. None of this fails an installation, for the engines do without us, or says
# anything: first_contact does.
start_all() {
	if socket_changed && systemctl --quiet is-active sidemirror.socket; then
		systemctl stop sidemirror.service sidemirror.socket || :
	fi
	ctl start sidemirror.socket || :
	if systemctl --quiet is-active sidemirror.socket; then
		systemctl restart sidemirror.service || :
	else
		systemctl try-restart sidemirror.service || :
	fi
	ctl restart sidemirror-hosts.service || :
}

# first_contact says in three lines at most what was configured, what needs a
# restart, and how to undo it. $* is what runs it. A configuration that cannot be read
# would be shown in more.
first_contact() {
	"$@" /usr/bin/sidemirror status --short 2>&1 | head -n 3 || :
}

# stop_all is before the files are given back: the watching service would put
# our part in again.
stop_all() {
	quiet systemctl stop sidemirror-hosts.service sidemirror.socket sidemirror.service || :
}

# give_back takes our part out of the engines' files. What cannot be given back is
# said and its journal kept, but it keeps nobody from removing the package.
give_back() {
	if said=$(timeout 120 /usr/bin/sidemirror revert 2>&1); then
		rmdir "$journal" 2>/dev/null || :
		return 0
	fi
	cat >&2 <<END
$said
sidemirror: some files of the container engines could not be given back, see above.
What was in them before is in $journal, which stays. Mend what it
says, install sidemirror again and remove it, or do it by hand:
https://github.com/sidemirror/sidemirror/blob/main/docs/recover.md
END
}

# drop_journal removes the journal's folder unless there is something in it that was
# not given back.
drop_journal() {
	if [ -e "$journal/journal.json" ]; then
		echo "sidemirror: $journal is kept: it has what was not given back" >&2
		return 0
	fi
	rm -rf "$journal"
}
