#!/bin/sh
# Runs in the workshop of a release once, with what the requirements follow from in /src: what takes long.
set -eu
cd /src
make .venv/run.stamp
.venv/bin/python -m pip install --quiet --compile --target /opt/checks-lib "$@"
