case $1 in
# After an abort, this starts again what prerm has stopped.
configure | abort-upgrade | abort-remove | abort-deconfigure) ;;
*) exit 0 ;;
esac

# ctl obeys policy-rc.d, and starts only units that are enabled.
ctl() {
	deb-systemd-invoke "$@"
}

# may_start asks policy-rc.d. If it forbids a start, there is nothing to report.
may_start() {
	command -v policy-rc.d >/dev/null || return 0
	code=0
	policy-rc.d sidemirror restart >/dev/null 2>&1 || code=$?
	[ "$code" != 101 ]
}

make_user
# As debhelper does it: enabled once. A unit that the administrator disables stays disabled.
for unit in sidemirror.socket sidemirror-hosts.service; do
	quiet deb-systemd-helper unmask "$unit" || :
	if deb-systemd-helper --quiet was-enabled "$unit"; then
		quiet deb-systemd-helper enable "$unit" || :
	else
		quiet deb-systemd-helper update-state "$unit" || :
	fi
done

keep_site_port
if systemd_runs; then
	move_addresses
	quiet systemctl --system daemon-reload || :
	if may_start; then
		start_all >/dev/null 2>&1
		first_contact timeout 30
	fi
fi
forget_addresses
