"""`python -m workers.runtime NAME`: a worker that is executed anew after its set-up."""

from __future__ import annotations

import sys

from workers.runtime.start import load

if __name__ == "__main__":
    sys.exit(load(sys.argv[1])())
