# $1 is how many versions there are now. At an upgrade, when it is 2, this is run
# before the old version's preun and postun, which do nothing then: it is the new
# one that knows what is to be restarted.

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
# rpm gives the labels of files of its own; these it does not know.
if command -v restorecon >/dev/null; then
	for path in /usr/bin/sidemirror /usr/lib/systemd/system/sidemirror* /etc/sidemirror \
		/var/lib/sidemirror /var/lib/sidemirror-hosts /var/cache/sidemirror; do
		[ ! -e "$path" ] || restorecon -R "$path" 2>/dev/null || :
	done
fi
if systemd_runs; then
	quiet systemctl daemon-reload || :
	start_all >/dev/null 2>&1
	# From 4.20 on rpm keeps the network from scripts, where nobody would answer.
	if command -v systemd-run >/dev/null; then
		first_contact systemd-run --quiet --pipe --wait --collect --property=RuntimeMaxSec=30
	else
		first_contact timeout 30
	fi
fi
rm -f "$previous"
exit 0
