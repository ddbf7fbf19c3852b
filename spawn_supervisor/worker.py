"""`python -m spawn_supervisor.worker NAME`: a worker that is executed anew after its set-up."""

from __future__ import annotations

import sys
from functools import partial

from supervisor import run
from workers.runtime.start import load

if __name__ == "__main__":
    sys.exit(run(f"worker {sys.argv[1]}", partial(load, sys.argv[1])))
