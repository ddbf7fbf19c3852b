# Where an installation has its parts.  install and uninstall read this; the environment may set the first four.
# shellcheck shell=sh disable=SC2034

PREFIX=${PREFIX:-/usr/local}
SYSCONFDIR=${SYSCONFDIR:-/etc}
DESTDIR=${DESTDIR:-}
PLATFORM=${PLATFORM:-}

home_of=$PREFIX/lib/spawn-supervisor
share=$PREFIX/share
units=$PREFIX/lib/systemd/system
documents=$share/doc/spawn-supervisor
examples_of=$share/spawn-supervisor/examples
definitions=$SYSCONFDIR/spawnd/services.d
commands='spawnd spawnctl spawn-enter'
platform_user=cm4all-spawn-reaper

needs_root() {
	if [ -z "$DESTDIR" ] && [ "$(id -u)" != 0 ]; then
		echo "make $1: needs root, or a DESTDIR" >&2
		exit 1
	fi
}
