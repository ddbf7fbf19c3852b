# For programs that run as root in somebody else's checkout: $own is a folder of their own, with a pip in it that has been
# installed just now and everything that the project is built with.  $own/build and $own/run are those sections of
# requirements/constraints.txt.
# shellcheck shell=sh

umask 022
own=$(mktemp -d)
trap 'rm -rf "$own"' EXIT

pip() { "$own/tools/bin/python" -I -m pip --quiet --disable-pip-version-check "$@"; }

# Exactly the files that requirements/constraints.txt lists, and nothing that these would require beyond them.
pip_listed() { pip "$@" --require-hashes --no-deps --no-build-isolation; }

# The same, from build/downloads where `make download` has brought all that are listed, else from the index.
pip_found() {
	if cmp -s build/downloads/constraints.txt requirements/constraints.txt; then
		set -- "$@" --no-index --find-links build/downloads
	fi
	pip_listed "$@"
}

tools/section build > "$own/build"
tools/section run > "$own/run"
"$PYTHON" -I -m venv "$own/tools"
pip_found install -r "$own/build"
