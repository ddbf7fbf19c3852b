# Two commands: `make run` and `make test`.  Each sets up what it needs, on a Debian 12 or 13 with
# nothing but make, and does nothing that has been done before.  `make install` puts it into the system.

PYTHON ?= /usr/bin/python3
VENV := .venv
ARGS ?=

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
HOME_OF := $(PREFIX)/lib/spawn-supervisor
SHARE := $(PREFIX)/share
UNITS := $(PREFIX)/lib/systemd/system

# Debian packages: Python, what python-prctl is compiled with, the clients that tests and trials use, and Lua for
# the example that is written in it.
PACKAGES := python3 python3-venv python3-dev gcc libc6-dev libcap-dev curl netcat-openbsd procps iproute2 \
	luajit lua-posix lua-cjson

# What the tests boot machines with.
MACHINE_PACKAGES := qemu-system-x86 mmdebstrap e2fsprogs

COMMANDS := spawnd spawnctl spawn-enter
EXAMPLES := conf/examples/qotd conf/examples/qotd-index conf/examples/tftpd
# Folders too: one is newer than the stamp when a file has gone.
SOURCES := $(shell find supervisor workers lua -name __pycache__ -prune -o -print) $(wildcard setup.py README.md)
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check

.ONESHELL:
.SHELLFLAGS := -euc
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-machines lint install uninstall packages machine-packages clean
unexport PYTHONPATH PYTHONHOME

help:
	@echo 'make run        start spawnd in the foreground with the services of conf/examples/'
	echo 'make test       check and test everything (ARGS: more arguments for pytest)'
	echo 'make test-fast  all but the checks in virtual machines'
	echo 'make test-machines  these alone: in Debian 12 and 13, as root'
	echo 'make lint       ruff and mypy alone'
	echo 'make install    into PREFIX ($(PREFIX)), below DESTDIR, as root; make uninstall takes it away'
	echo 'make clean      remove everything that make has made'

# Services of a root supervisor run as nobody: they need a folder that nobody can enter.  That is build/,
# or a folder in /tmp where the checkout is too private for it or its name too long for a Unix socket
# (107 bytes); build/place remembers which, so that the next run finds the same one.
run: $(VENV)/project.stamp
	@umask 022
	mkdir -p build
	enter='test -x $(CURDIR)/build'
	if [ "$$(id -u)" = 0 ]; then enter="setpriv --reuid=65534 --regid=65534 --clear-groups $$enter"; fi
	place=$$(cat build/place 2>/dev/null || echo '$(CURDIR)/build')
	if [ ! -d "$$place" ] || [ -L "$$place" ] || [ ! -O "$$place" ]; then place='$(CURDIR)/build'; fi
	if [ "$$place" = '$(CURDIR)/build' ] && { [ $${#place} -gt 64 ] || ! $$enter; }; then
		place=$$(mktemp -d /tmp/spawn-supervisor-XXXXXX)
		chmod 755 "$$place"
		echo "The examples are in $$place: services cannot use $(CURDIR)/build"
	fi
	echo "$$place" > build/place
	rm -rf "$$place/examples"
	cp -R conf/examples "$$place/examples"
	chmod -R a+rX "$$place/examples"
	chmod 600 "$$place/examples/quotes.txt" "$$place/examples/quotes.index"
	sed "s|/usr/share/spawn-supervisor/examples|$$place/examples|" \
		conf/examples/services.lua > "$$place/examples/services.lua"
	printf '%s\n' \
		'Starting spawnd in the foreground; Ctrl-C stops it and its services.  Try in a second terminal:' \
		'' \
		'  nc -w 1 127.0.0.1 1717                   a quote over TCP' \
		'  echo | nc -u -w 1 127.0.0.1 1717         a quote over UDP' \
		'  curl tftp://127.0.0.1:6969/hello.txt     a file over TFTP' \
		'  nc -w 1 127.0.0.1 1718                   a message' \
		"  $(CURDIR)/$(VENV)/bin/spawnctl --socket $$place/run/control call motd SetMessage '{\"message\": \"Hello.\"}'" \
		'                                           another message from now on' \
		"  $(CURDIR)/$(VENV)/bin/spawnctl --socket $$place/run/control list" \
		"  kill -9 \$$(pgrep -f $$place/examples/qotd)     and ask again: it is back, with another pid" \
		''
	exec $(VENV)/bin/spawnd --config "$$place/examples/services.lua" --runtime-dir "$$place/run"

# The shells whose completion is tested, the server that scripts use.
test test-fast: PACKAGES += zsh fish postgresql
# A run for each kind: a test must not find what those of another have left in the process that runs it.
# The tests import what has been installed: Python and pytest put the checkout behind it (-P, append).
test: test-fast test-machines

test-fast: lint
	@$(VENV)/bin/python -P -m pytest tests/unit $(ARGS)
	$(VENV)/bin/python -P -m pytest tests/integration $(ARGS)

test-machines: $(VENV)/project.stamp $(VENV)/test.stamp machine-packages
	@$(VENV)/bin/python -P -m pytest tests/vm $(ARGS)

lint: $(VENV)/project.stamp $(VENV)/test.stamp
	@$(VENV)/bin/ruff check --quiet . $(EXAMPLES)
	$(VENV)/bin/mypy

packages: WITHOUT := exit 1
machine-packages: PACKAGES := $(MACHINE_PACKAGES)
machine-packages: WITHOUT := echo 'Checks in virtual machines are left out' >&2
packages machine-packages:
	@installed=$$(dpkg-query -W -f '$${Package} $${db:Status-Status}\n' $(PACKAGES) 2>/dev/null || true)
	missing=
	for package in $(PACKAGES); do
		echo "$$installed" | grep -qx "$$package installed" || missing="$$missing $$package"
	done
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ]; then
		echo "Installing Debian packages:$$missing"
		case $$missing in *postgresql*)
			# the tests make clusters of their own; none is made and started for the host
			no_cluster=/etc/postgresql-common/createcluster.d/spawn-supervisor-tests.conf
			trap 'rm -f $$no_cluster' EXIT
			mkdir -p $${no_cluster%/*}
			echo 'create_main_cluster = off' > $$no_cluster
		esac
		export DEBIAN_FRONTEND=noninteractive
		apt-get -qq update </dev/null
		apt-get -qq -o Dpkg::Use-Pty=0 install -y --no-install-recommends $$missing </dev/null >/dev/null
	elif [ -n "$$missing" ]; then
		echo "Debian packages are missing.  As root: apt-get install$$missing" >&2
		$(WITHOUT)
	fi

$(VENV)/venv.stamp: | packages
	@echo 'Creating the virtual environment $(VENV)'
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) install 'setuptools >= 64' wheel
	touch $@

# setup.cfg knows what is required; only a change there installs again.
build/requirements.%: setup.cfg
	@mkdir -p build
	$(PYTHON) -c '
	import configparser, sys
	cfg = configparser.RawConfigParser()
	cfg.read("setup.cfg")
	print(cfg.get(*{"run": ("options", "install_requires"), "test": ("options.extras_require", "test")}["$*"]))
	' > $@

$(VENV)/run.stamp $(VENV)/test.stamp: $(VENV)/%.stamp: $(VENV)/venv.stamp build/requirements.%
	@echo 'Installing what is required to $* it'
	$(PIP) install --use-pep517 -r build/requirements.$*
	touch $@

# Not editable: the finders of editable installs cost every start of a process time.  What an earlier
# build left in build/lib would be installed again, even if it has been deleted since.
$(VENV)/project.stamp: $(VENV)/run.stamp $(SOURCES) setup.cfg pyproject.toml
	@echo 'Installing spawn-supervisor'
	rm -rf build/lib build/lib.* build/bdist.*
	$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	touch $@

# What is built here is installed there: the environment of the installed commands has no pip, and needs no network.
build/wheels.stamp: $(VENV)/project.stamp
	@echo 'Building wheels'
	rm -rf build/wheels
	$(PIP) wheel --no-build-isolation --wheel-dir build/wheels .
	touch $@

# The new environment is made beside the one in use and then takes its place.
install: build/wheels.stamp
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" != 0 ]; then
		echo 'make install: needs root, or a DESTDIR' >&2
		exit 1
	fi
	umask 022
	echo 'Installing into $(DESTDIR)$(PREFIX)'
	home='$(DESTDIR)$(HOME_OF)'
	rm -rf "$$home.new" "$$home.old"
	$(PYTHON) -m venv --without-pip "$$home.new"
	$(PIP) --python "$$home.new/bin/python" install --no-index --find-links build/wheels --no-compile spawn-supervisor
	grep -rlIF "$$home.new" "$$home.new/bin" "$$home.new/pyvenv.cfg" | xargs sed -i "s|$$home.new|$(HOME_OF)|g"
	$(PYTHON) -m compileall -q -s "$$home.new" -p '$(HOME_OF)' "$$home.new/lib"
	if [ -e "$$home" ]; then mv "$$home" "$$home.old"; fi
	mv "$$home.new" "$$home"
	rm -rf "$$home.old"
	place() { # FILE... FOLDER: with the paths of this installation in them
		for folder; do :; done
		mkdir -p "$(DESTDIR)$$folder"
		while [ $$# -gt 1 ]; do
			if [ -f "$$1" ]; then
				sed 's|/usr/lib/spawn-supervisor|$(HOME_OF)|g; s|/usr/share/|$(SHARE)/|g' "$$1" > "$(DESTDIR)$$folder/$${1##*/}"
			fi
			shift
		done
	}
	place conf/systemd/*.service conf/systemd/*.slice '$(UNITS)'
	place conf/sysusers.d/*.conf '$(PREFIX)/lib/sysusers.d'
	place conf/tmpfiles.d/*.conf '$(PREFIX)/lib/tmpfiles.d'
	place conf/completion/spawnctl.bash '$(SHARE)/bash-completion/completions'
	place conf/completion/_spawnctl '$(SHARE)/zsh/site-functions'
	place conf/completion/spawnctl.fish '$(SHARE)/fish/vendor_completions.d'
	place README.md CHANGELOG.md docs/*.md '$(SHARE)/doc/spawn-supervisor'
	place conf/systemd/spawnd.service.d/*.conf '$(SHARE)/doc/spawn-supervisor'
	examples='$(SHARE)/spawn-supervisor/examples'
	mkdir -p "$(DESTDIR)$$examples"
	cp -R conf/examples/. "$(DESTDIR)$$examples/"
	place conf/examples/*.lua "$$examples"
	mkdir -p '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(SYSCONFDIR)/spawnd/services.d'
	for command in $(COMMANDS); do ln -sf "$(HOME_OF)/bin/$$command" '$(DESTDIR)$(PREFIX)/bin/'; done
	# what an operator may have changed stays
	for file in conf/services.d/*.lua; do
		if [ -f "$$file" ] && [ ! -e "$(DESTDIR)$(SYSCONFDIR)/spawnd/services.d/$${file##*/}" ]; then
			cp "$$file" '$(DESTDIR)$(SYSCONFDIR)/spawnd/services.d/'
		fi
	done
	script='$(DESTDIR)$(SYSCONFDIR)/cm4all/spawn/reaper.lua'
	if [ ! -e "$$script" ]; then
		mkdir -p "$${script%/*}"
		cp conf/reaper.lua "$$script"
	fi
	if [ -n "$(DESTDIR)" ]; then exit; fi
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers '$(PREFIX)/lib/sysusers.d/spawn-supervisor.conf'
		systemd-tmpfiles --create '$(PREFIX)/lib/tmpfiles.d/spawn-supervisor.conf'
	fi
	if [ -d /run/systemd/system ]; then
		systemctl daemon-reload
		echo 'To start it now and at each boot: systemctl enable --now spawnd'
		echo 'To have one that runs go on with what was installed: spawnctl reexec'
	fi

# Definitions and data stay.
uninstall:
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" != 0 ]; then
		echo 'make uninstall: needs root, or a DESTDIR' >&2
		exit 1
	fi
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then
		if systemctl --quiet is-active spawnd.service; then
			echo 'make uninstall: spawnd runs.  First: systemctl disable --now spawnd' >&2
			exit 1
		fi
		systemctl --quiet disable spawnd.service system-cm4all.slice 2>/dev/null || true
	fi
	cd '$(DESTDIR)$(PREFIX)'
	for command in $(COMMANDS); do rm -f "bin/$$command"; done
	rm -rf lib/spawn-supervisor share/spawn-supervisor share/doc/spawn-supervisor
	rm -f lib/sysusers.d/spawn-supervisor.conf lib/tmpfiles.d/spawn-supervisor.conf
	rm -f lib/systemd/system/spawnd.service lib/systemd/system/system-cm4all.slice
	rm -f share/bash-completion/completions/spawnctl.bash share/zsh/site-functions/_spawnctl
	rm -f share/fish/vendor_completions.d/spawnctl.fish
	if [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
	echo 'Left alone: $(SYSCONFDIR)/spawnd, $(SYSCONFDIR)/cm4all, /var/lib/spawnd, the user cm4all-spawn-reaper'

clean:
	@place=$$(cat build/place 2>/dev/null || true)
	case $$place in /tmp/spawn-supervisor-*) if [ -O "$$place" ] && [ ! -L "$$place" ]; then rm -rf "$$place"; fi ;; esac
	rm -rf build $(VENV) ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
