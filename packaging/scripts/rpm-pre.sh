# $1 is how many versions there will be: 1 at an installation, 2 at an upgrade.
if [ "$1" -ge 2 ]; then
	remember_addresses
	remember_site
fi
exit 0
