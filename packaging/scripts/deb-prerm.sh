case $1 in
# An upgrade stops and reverts nothing, nor does the removal of a dependency.
remove)
	if systemd_runs; then
		stop_all
	fi
	give_back
	;;
esac
