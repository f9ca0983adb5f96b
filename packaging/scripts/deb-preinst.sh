case $1 in
upgrade) remember_socket ;;
esac
