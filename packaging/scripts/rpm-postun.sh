# $1 is how many versions are left. rpm knows no purge: what can be fetched again is removed, the
# logins and the user stay, as rpm leaves edited configuration and users.
if [ "$1" -eq 0 ]; then
	drop_own_listen
	if systemd_runs; then
		quiet systemctl daemon-reload || :
	fi
	rm -rf /var/cache/sidemirror /run/sidemirror-hosts
	rmdir /var/lib/sidemirror /var/lib/sidemirror-logins 2>/dev/null || :
	drop_journal
fi
exit 0
