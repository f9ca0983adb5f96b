# $1 is how many versions will be left: 0 at a removal, 1 at an upgrade, which stops and reverts
# nothing.
if [ "$1" -eq 0 ]; then
	if systemd_runs; then
		stop_all
	fi
	if command -v systemctl >/dev/null; then
		quiet systemctl --no-reload disable sidemirror.socket sidemirror-site.socket sidemirror-site-http.socket sidemirror-hosts.service || :
	fi
	give_back
fi
exit 0
