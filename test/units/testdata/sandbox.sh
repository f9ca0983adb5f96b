#!/bin/sh
# Run by ExecStartPre= of sidemirror.service, and therefore in the very sandbox of
# the daemon: what credential helpers need is there, and what the daemon is not to
# do cannot be done. Each check is a line; a failed one keeps the unit from starting.
# With the argument "outside" it is run beside the sandbox, by root, and checks that
# what cannot be done within can be done there: a trial that always fails shows nothing.
set -u
where=${1:-inside}
failed=

passed() { echo "sandbox: passed $where: $1"; }
lost() {
	echo "sandbox: FAILED $where: $1: $2"
	failed=yes
}

can() {
	what=$1
	shift
	if said=$("$@" 2>&1); then passed "$what"; else lost "$what" "it cannot: $said"; fi
}

cannot() {
	if [ "$where" = outside ]; then
		can "$@"
		return
	fi
	what=$1
	shift
	if said=$("$@" 2>&1); then lost "$what" "it can: $said"; else passed "$what"; fi
}

# ask is a helper asked as security.md has it: by its absolute path, with HOME and PATH
# alone.
ask() {
	login=$(echo https://registry.example |
		env -i "HOME=$HOME" "PATH=$PATH" "/usr/local/bin/docker-credential-$1" get)
	echo "$login"
	[ "$login" = "$2" ]
}

shows() { grep -q "$1" "$2"; }
overwrite() { (: >>"$1"); }
linklocal() {
	said=$(/usr/local/bin/docker-credential-sandboxed talk-at 169.254.169.254 2>&1) && return
	case $said in *"cannot be tried"*) echo "$said" && return 0 ;; esac
	return 1
}

helpers() {
	can "HOME is the state folder" [ "$HOME" = /var/lib/sidemirror ]
	can "a script is a helper" ask script '{"ServerURL":"https://registry.example","Username":"script","Secret":"a-token"}'
	can "a static program is a helper, and speaks TLS" ask sandboxed '{"Secret":"a-token","ServerURL":"https://registry.example","Username":"sandboxed"}'
	can "a dynamic program finds its libraries" getent passwd sidemirror
	can "loopback is reached" /usr/local/bin/docker-credential-sandboxed talk-at 127.0.0.1
	can "the configuration is read" [ -r /etc/sidemirror ]
	can "no capability is left" shows '^CapBnd:[[:space:]]*0*$' /proc/self/status
	can "none can be gained" shows '^NoNewPrivs:[[:space:]]*1$' /proc/self/status
	can "system calls are filtered" shows '^Seccomp:[[:space:]]*2$' /proc/self/status
	# Of a control group, which what is run outside is in too.
	cannot "link-local and metadata addresses are out of reach" linklocal
}

[ "$where" = outside ] || helpers
cannot "memory is not both written and executed" /usr/local/bin/docker-credential-sandboxed execute-written-memory
cannot "/etc is not written" overwrite /etc/sandbox-was-here
cannot "/var/tmp is not the host's" [ -e /var/tmp/of-the-host ]
cannot "root's home is not seen" ls /root/.
cannot "other users' processes are not seen" [ -e /proc/1/status ]
cannot "the kernel's settings are not seen" [ -e /proc/sys/kernel ]
cannot "devices are not seen" [ -e /dev/console ]
cannot "no namespace is made" unshare --user true
[ "$where" = inside ] || rm -f /etc/sandbox-was-here

[ -z "$failed" ]
