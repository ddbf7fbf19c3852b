# Two commands: `make run` and `make test`.  Each sets up what it needs, on a Debian 12 or 13 with
# nothing but make, and does nothing that has been done before.  `make install` puts it into the system.
# The programs behind the longer recipes are in tools/.

PYTHON ?= /usr/bin/python3
VENV := .venv

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc

# Debian packages: Python, what python-prctl is compiled with, the clients that tests and trials use, and Lua for
# the example that is written in it.
PACKAGES := python3 python3-venv python3-dev gcc libc6-dev libcap-dev curl netcat-openbsd procps iproute2 \
	luajit lua-posix lua-cjson
# The shells whose completion is tested, the locales that spawnd is tested in, the servers of scripts and recipes, the
# program that checks tools/, and what makes and shows man pages.
test test-fast: PACKAGES += zsh fish locales postgresql nginx-light gunicorn nodejs shellcheck \
	xinetd git rsync tftpd-hpa tftp-hpa openssh-server openssh-client pandoc man-db
# What the tests boot machines with.
MACHINE_PACKAGES := qemu-system-x86 mmdebstrap e2fsprogs

EXAMPLES := conf/examples/qotd conf/examples/qotd-index conf/examples/tftpd
# Folders too: one is newer than the stamp when a file has gone.
SOURCES := $(shell find spawn_supervisor supervisor workers importer lua -name __pycache__ -prune -o -print) $(wildcard setup.py README.md)
PIP := $(VENV)/bin/python -m pip --quiet --disable-pip-version-check
# Exactly the files that requirements/constraints.txt lists, and nothing that these would require beyond them.
LISTED := --require-hashes --no-deps --no-build-isolation

.ONESHELL:
.SHELLFLAGS := -euc
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run test test-fast test-machines lint install uninstall packages machine-packages \
	constraints download clean
unexport PYTHONPATH PYTHONHOME

help:
	@echo 'make run        start spawnd in the foreground with the services of conf/examples/'
	echo 'make test       check and test everything (ARGS: more arguments for pytest)'
	echo 'make test-fast  all but the checks in virtual machines'
	echo 'make test-machines  these alone: in Debian 12 and 13, as root'
	echo 'make lint       ruff, mypy and shellcheck alone'
	echo 'make install    into PREFIX ($(PREFIX)), below DESTDIR, as root; make uninstall takes it away'
	echo '                PLATFORM=1: with the services of a hosting platform, which are examples otherwise'
	echo 'make download   fetch the files that make install takes, which needs no network then'
	echo 'make constraints  list the newest releases of all that is required, with their hashes'
	echo 'make clean      remove everything that make has made'

run: $(VENV)/project.stamp
	@exec tools/run

# The layers of machines are built meanwhile, where they are not there yet; test-machines reports every failure.
test: $(VENV)/project.stamp $(VENV)/test.stamp machine-packages
	@nice -n 19 $(VENV)/bin/python -m tests.vm --build > build/machines.log 2>&1 & machines=$$!
	trap 'kill $$machines 2> /dev/null || true' EXIT
	$(MAKE) --no-print-directory test-fast
	$(MAKE) --no-print-directory test-machines

test-fast: $(VENV)/project.stamp $(VENV)/test.stamp
	@tools/test-fast $(ARGS)

test-machines: $(VENV)/project.stamp $(VENV)/test.stamp machine-packages
	@tools/run-tests vm $(ARGS)

lint: $(VENV)/project.stamp $(VENV)/test.stamp
	@$(VENV)/bin/ruff check --quiet . $(EXAMPLES)
	$(VENV)/bin/mypy
	if command -v shellcheck > /dev/null; then grep -lE '^(#!/bin/sh|# shellcheck shell=sh)' tools/* conf/examples/finger | xargs shellcheck -x; fi

packages:
	@tools/packages $(PACKAGES)
machine-packages:
	@tools/packages $(MACHINE_PACKAGES) || echo 'Checks in virtual machines are left out' >&2

$(VENV)/venv.stamp: | packages
	@echo 'Creating the virtual environment $(VENV)'
	$(PYTHON) -m venv --clear $(VENV)
	touch $@

# What is required, in its exact releases with their hashes; only a change there installs again.
build/constraints.%: requirements/constraints.txt
	@mkdir -p build
	tools/section $* > $@

$(VENV)/build.stamp: $(VENV)/venv.stamp build/constraints.build
	@$(PIP) install $(LISTED) -r build/constraints.build
	touch $@

$(VENV)/run.stamp $(VENV)/test.stamp: $(VENV)/%.stamp: $(VENV)/build.stamp build/constraints.%
	@echo 'Installing what is required to $* it'
	$(PIP) install $(LISTED) --use-pep517 -r build/constraints.$*
	touch $@

# As the oldest Python that is supported, with the index of pip's configuration.
constraints: $(VENV)/build.stamp
	@$(VENV)/bin/python requirements/lock.py

# Not editable: the finders of editable installs cost every start of a process time.  What an earlier
# build left in build/lib would be installed again, even if it has been deleted since.
$(VENV)/project.stamp: $(VENV)/run.stamp $(SOURCES) setup.cfg pyproject.toml
	@echo 'Installing spawn-supervisor'
	rm -rf build/lib build/lib.* build/bdist.*
	$(PIP) install --no-deps --no-build-isolation --force-reinstall .
	tools/finish $(VENV)
	cd $(VENV)/lib/python3*/site-packages
	echo spawn_supervisor > tests.pth # they import what is below it
	touch $(CURDIR)/$@

install download: packages
install uninstall download:
	@export PYTHON='$(PYTHON)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' DESTDIR='$(DESTDIR)' PLATFORM='$(PLATFORM)'
	exec tools/$@

clean:
	@place=$$(cat build/place 2>/dev/null || true)
	case $$place in /tmp/spawn-supervisor-*) if [ -O "$$place" ] && [ ! -L "$$place" ]; then rm -rf "$$place"; fi ;; esac
	rm -rf build $(VENV) ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
