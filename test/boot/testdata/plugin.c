/* A shared library that leaves a file behind when any program loads it. containerd 1.x loads
   what is in the folder that "plugin_dir" in its configuration names, with the rights of the
   user who runs it. */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

__attribute__((constructor)) static void loaded(void)
{
	char text[64];
	int fd = open(MARKER, O_WRONLY | O_CREAT | O_APPEND, 0644);

	if (fd < 0)
		return;
	int n = snprintf(text, sizeof text, "loaded by uid %d, euid %d\n", getuid(), geteuid());
	if (write(fd, text, n) < 0)
		_exit(1);
	close(fd);
}
