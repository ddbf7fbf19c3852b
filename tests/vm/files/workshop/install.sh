#!/bin/sh
# Runs in the prepared workshop with the project in /src: puts into /out what a machine gets of it, as a distribution
# would install it, and what its checks need.
set -eu
cd /src
make install PREFIX=/usr DESTDIR=/out PLATFORM=1
mkdir -p /out/opt
cp -a /opt/checks-lib /out/opt/
