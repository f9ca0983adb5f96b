case $1 in
upgrade)
	remember_addresses
	remember_site
	;;
esac
