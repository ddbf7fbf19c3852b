#!/bin/sh
# Runs in the workshop of a release once, with what the requirements follow from in /src: what takes long.
set -eu
cd /src
make download .venv/venv.stamp
.venv/bin/python -m pip install --quiet --compile --require-hashes --no-deps --target /opt/checks-lib -r /checks.txt
