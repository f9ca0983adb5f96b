# $1 is how many versions there are now. At an upgrade it is 2, and this runs before the old
# version's preun and postun, which then do nothing: the new version knows what to restart.

# ctl starts only units that are enabled, and restarts also those that run.
ctl() {
	case $1 in
	start) systemctl --quiet is-enabled "$2" || return 0 ;;
	restart) systemctl --quiet is-enabled "$2" || systemctl --quiet is-active "$2" || return 0 ;;
	esac
	systemctl "$@"
}

make_user
if [ "$1" -eq 1 ] && command -v systemctl >/dev/null; then
	quiet systemctl --no-reload preset sidemirror.socket sidemirror-hosts.service || :
fi
# rpm labels the files of the package. It does not know these.
if command -v restorecon >/dev/null; then
	for path in /usr/bin/sidemirror /usr/lib/systemd/system/sidemirror* /etc/sidemirror \
		/var/lib/sidemirror /var/lib/sidemirror-hosts /var/lib/sidemirror-logins /var/cache/sidemirror; do
		[ ! -e "$path" ] || restorecon "$path" 2>/dev/null || :
	done
fi
keep_site_port
if systemd_runs; then
	move_addresses
	quiet systemctl daemon-reload || :
	start_all >/dev/null 2>&1
	# From 4.20 on rpm runs scripts without a network, in which nothing listens.
	if command -v systemd-run >/dev/null; then
		first_contact systemd-run --quiet --pipe --wait --collect --property=RuntimeMaxSec=30
	else
		first_contact timeout 30
	fi
fi
forget_addresses
exit 0
