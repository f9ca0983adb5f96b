case $1 in
upgrade) remember_addresses ;;
esac
