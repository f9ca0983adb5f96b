case $1 in
remove)
	drop_own_listen
	# "sidemirror site enable" has enabled them, and docs/site.md names the last one.
	quiet rm -f /etc/systemd/system/sockets.target.wants/sidemirror-site.socket \
		/etc/systemd/system/sidemirror.service.wants/sidemirror-site.socket \
		/etc/systemd/system/sockets.target.wants/sidemirror-site-http.socket \
		/etc/systemd/system/sidemirror.service.wants/sidemirror-site-http.socket || :
	if systemd_runs; then
		quiet systemctl --system daemon-reload || :
	fi
	;;
purge)
	if command -v deb-systemd-helper >/dev/null; then
		quiet deb-systemd-helper purge sidemirror.socket sidemirror-site.socket sidemirror-site-http.socket sidemirror-hosts.service || :
		quiet deb-systemd-helper unmask sidemirror.socket sidemirror-site.socket sidemirror-site-http.socket sidemirror-hosts.service || :
	fi
	rm -rf /var/cache/sidemirror /var/lib/sidemirror /var/lib/sidemirror-logins /run/sidemirror /run/sidemirror-hosts
	drop_journal
	drop_users
	rmdir /etc/sidemirror 2>/dev/null || :
	# userdel removes the group of the same name as well.
	if getent passwd sidemirror >/dev/null && command -v userdel >/dev/null; then
		quiet userdel sidemirror || :
	fi
	;;
abort-install | abort-upgrade)
	forget_addresses
	rm -f "$site_ports"
	;;
esac
