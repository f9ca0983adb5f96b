#!/bin/sh
# What the maintainer scripts of deb and rpm have in common. build.sh puts this before each of them:
# the scripts cannot read files of their package, because they run before it is unpacked and after it
# is removed.
#
# A script that includes this defines ctl: systemctl, as the administrator's policy has it.
#
# The scripts run no program and read no file that a user other than root could have chosen: all
# of their state is in /run, where only root can make files.
set -e

socket_unit=/usr/lib/systemd/system/sidemirror.socket

# Written before an upgrade and read after it: the addresses in the socket unit, and those
# that systemd has open.
previous=/run/sidemirror.socket.previous
listening=/run/sidemirror.socket.listening

# Made by move_addresses if the configuration names a former address.
own_listen=/etc/systemd/system/sidemirror.socket.d/listen.conf

# Units and settings of move_addresses, which last until the next boot.
runtime=/run/systemd/system
moved=/run/sidemirror.socket.moved

# The folder with the journal of the engines' files.
journal=/var/lib/sidemirror-hosts

# Made before an upgrade from a version whose one unit of the site has both of its ports open.
site_ports=/run/sidemirror-site.ports

# systemd_runs is sd_booted(3). In most containers and chroots it returns false.
systemd_runs() {
	[ -d /run/systemd/system ] && command -v systemctl >/dev/null
}

# quiet runs a command and prints its output only if it fails.
quiet() {
	if said=$("$@" 2>&1); then
		return 0
	fi
	printf 'sidemirror: %s: %s\n' "$*" "$said" >&2
	return 1
}

# make_user creates the user, and its folders if this is a host that runs. It passes the files by
# name, so that files of the same name in /etc take precedence.
make_user() {
	if command -v systemd-sysusers >/dev/null; then
		quiet systemd-sysusers sidemirror.conf || :
	fi
	if systemd_runs && command -v systemd-tmpfiles >/dev/null; then
		quiet systemd-tmpfiles --create sidemirror.conf || :
	fi
}

# unit_addresses prints the addresses in the installed socket unit, one a line.
unit_addresses() {
	sed -n 's/^ListenStream=//p' "$socket_unit"
}

# open_addresses prints the addresses of the socket unit as systemd has loaded it, with the
# administrator's changes.
open_addresses() {
	systemctl show --property=Listen sidemirror.socket | sed -n 's/^Listen=//; s/ (Stream)$//p'
}

# remember_addresses stores the addresses before the files of an upgrade are unpacked.
remember_addresses() {
	if systemd_runs && [ -r "$socket_unit" ]; then
		unit_addresses >"$previous" || :
		open_addresses >"$listening" || :
	fi
}

# forget_addresses ends what remember_addresses began.
forget_addresses() {
	rm -f "$previous" "$listening"
}

# remember_site notes that a site is enabled whose unit has port 80 too, as it had in a former version.
# Where the administrator has chosen the ports, they stay as they are.
remember_site() {
	unit=sidemirror-site.socket
	rm -f "$site_ports"
	if command -v systemctl >/dev/null && systemctl --quiet is-enabled "$unit" 2>/dev/null &&
		grep -qsx 'ListenStream=80' "/usr/lib/systemd/system/$unit" && [ ! -e "/etc/systemd/system/$unit" ] &&
		! grep -qs '^ListenStream=' "/etc/systemd/system/$unit.d/"*.conf; then
		: >"$site_ports"
	fi
}

# keep_site_port enables the unit that has port 80 now, so that it stays open.
keep_site_port() {
	if [ -e "$site_ports" ]; then
		quiet systemctl --no-reload enable sidemirror-site-http.socket || :
		rm -f "$site_ports"
	fi
}

# only_in prints the lines of $1 that $2 does not have and, if it is given, $3 has.
only_in() {
	printf '%s\n' "$1" | while read -r line; do
		if [ -n "$line" ] && ! printf '%s\n' "$2" | grep -qxF -e "$line" &&
			{ [ $# -lt 3 ] || printf '%s\n' "$3" | grep -qxF -e "$line"; }; then
			printf '%s\n' "$line"
		fi
	done
}

# listen_streams makes ListenStream= lines of the addresses $1.
listen_streams() {
	[ -z "$1" ] || printf '%s\n' "$1" | sed 's/^/ListenStream=/'
}

# configured_addresses prints the addresses that config.toml names, one a line.
configured_addresses() {
	timeout 10 /usr/bin/sidemirror config show 2>/dev/null | sed -n 's/^listen = \[\(.*\)\].*/\1/p' | tr -d '" ' | tr ',' '\n'
}

# move_addresses prepares an upgrade that changes the addresses, before systemd reads the new
# units. At no moment may an engine ask at an address that systemd has closed, where another
# user could listen. So the former addresses stay open until the next boot, because pulls that have
# begun still use them; the new addresses are opened by a socket unit of their own, because systemd
# opens those of a unit only together; and the proxy serves both. The engines' files are rewritten
# after that.
move_addresses() {
	[ -r "$previous" ] || return 0
	old=$(cat "$previous")
	new=$(unit_addresses)
	open=$(cat "$listening")
	former=$(only_in "$old" "$new" "$open")
	[ -n "$former" ] && systemctl --quiet is-active sidemirror.socket || return 0
	keep_own_listen
	mkdir -p "$runtime/sidemirror.socket.d" "$runtime/sidemirror.service.d"
	: >"$moved"
	# If the socket unit is stopped or restarted, it takes the new addresses over.
	cat >"$runtime/sidemirror.socket.d/moved.conf" <<END
[Socket]
$(listen_streams "$former")
ExecStopPost=-rm -f $moved
ExecStopPost=-systemctl stop sidemirror-moved.socket
END
	cat >"$runtime/sidemirror-moved.socket" <<END
[Unit]
Description=Registry mirror for this host's container engines, sockets until the next boot
ConditionPathExists=$moved
[Socket]
$(listen_streams "$(only_in "$new" "$open")")
FreeBind=yes
END
	# A socket unit cannot start while its own service runs. This one stands for the proxy: it
	# runs exactly as long as the proxy does.
	cat >"$runtime/sidemirror-moved.service" <<END
[Unit]
Description=Registry mirror for this host's container engines, by its new sockets
BindsTo=sidemirror.service
After=sidemirror.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
END
	cat >"$runtime/sidemirror.service.d/moved.conf" <<END
[Service]
Sockets=sidemirror-moved.socket
END
}

# keep_own_listen keeps those of the former addresses open, also after a boot, that config.toml names:
# the engines go on asking there.
keep_own_listen() {
	configured=$(configured_addresses)
	own=$(only_in "$former" "$new" "$configured")
	[ -n "$own" ] || return 0
	mkdir -p "${own_listen%/*}"
	cat >"$own_listen" <<END
# An upgrade of sidemirror made this file, because "listen" in config.toml names these addresses. To
# use the new default, remove "listen" there, remove this file, and restart sidemirror.socket.
[Socket]
$(listen_streams "$own")
END
	former=$(only_in "$former" "$own")
}

# drop_own_listen removes what keep_own_listen made.
drop_own_listen() {
	rm -f "$own_listen"
	rmdir "${own_listen%/*}" 2>/dev/null || :
}

# start_all starts what does not run and restarts what does. No enabled unit starts the proxy; it is
# started here to find out now whether it can be. A failure does not fail the installation, because
# engines work without sidemirror, and prints nothing: first_contact does.
start_all() {
	ctl start sidemirror.socket || :
	if [ -e "$moved" ]; then
		systemctl start sidemirror-moved.socket || :
	fi
	if systemctl --quiet is-active sidemirror.socket; then
		systemctl restart sidemirror.service || :
	else
		systemctl try-restart sidemirror.service || :
	fi
	ctl restart sidemirror-hosts.service || :
}

# first_contact prints in at most three lines what was configured, what needs a restart, and how to
# undo it. $* is the command that runs it. An invalid configuration would print more.
first_contact() {
	"$@" /usr/bin/sidemirror status --short 2>&1 | head -n 3 || :
}

# stop_all comes before give_back: the watcher would write sidemirror's entries again.
stop_all() {
	quiet systemctl stop sidemirror-hosts.service sidemirror.socket sidemirror-site.socket sidemirror-site-http.socket sidemirror.service || :
	rm -rf "$moved" "$runtime/sidemirror.socket.d/moved.conf" "$runtime/sidemirror.service.d/moved.conf" \
		"$runtime/sidemirror-moved.socket" "$runtime/sidemirror-moved.service"
	rmdir "$runtime/sidemirror.socket.d" "$runtime/sidemirror.service.d" 2>/dev/null || :
}

# give_back takes sidemirror's entries out of the engines' files. It prints what it could not restore
# and keeps the journal of that, but the package is removed in any case.
give_back() {
	if said=$(timeout 120 /usr/bin/sidemirror revert --files-only 2>&1); then
		rmdir "$journal" 2>/dev/null || :
		return 0
	fi
	cat >&2 <<END
$said
sidemirror: some files of the container engines could not be restored, see above.
What was in them before is in $journal, which stays. Fix what it
says, install sidemirror again and remove it, or restore them yourself:
https://github.com/sidemirror/sidemirror/blob/main/docs/recover.md
END
}

# drop_journal removes the journal's folder, unless it holds something that was not restored.
drop_journal() {
	if [ -e "$journal/journal.json" ]; then
		echo "sidemirror: $journal stays: it has what was not restored" >&2
		return 0
	fi
	rm -rf "$journal"
}

# drop_users removes the file of the site's users, if sidemirror has made it. The first line says so.
drop_users() {
	users=/etc/sidemirror/site.htpasswd
	if [ -f "$users" ] && [ ! -L "$users" ] &&
		head -n 1 "$users" | grep -qxF '# By "sidemirror site user". The lines are those of htpasswd -B.'; then
		rm -f "$users"
	fi
}
