case $1 in
# An upgrade stops and reverts nothing, nor does a dependency that goes.
remove)
	if systemd_runs; then
		stop_all
	fi
	give_back
	;;
esac
