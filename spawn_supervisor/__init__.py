"""The one import package that an installation has: the rest of the project is below it.

Other software has packages that are called `supervisor` and `workers`, and may be in the same environment.  So the
commands begin here, with this folder as the first one that modules are looked for in.
"""

from __future__ import annotations

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
if sys.path[:1] != [HERE]:
    sys.path.insert(0, HERE)

from supervisor import spawn_enter as spawn_enter  # noqa: E402 - it is found by the line above
from supervisor import spawnctl as spawnctl  # noqa: E402
from supervisor import spawnd as spawnd  # noqa: E402
