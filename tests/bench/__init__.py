"""Benchmarks of what is installed, each of which prints one line of JSON: `python -m tests.bench.NAME`."""

import sys
from pathlib import Path

# `python -m` looks in the checkout first, where the packages lack their C libraries
if sys.path[0] == str(Path(__file__).parents[2]):
    sys.path.append(sys.path.pop(0))
