"""The imports that all netns workers have in common: for the worker that stays, and for each of its tasks.

The process that forks the workers stays as well, so this is nobody's own memory.  pyroute2 is not imported: few tasks
change anything, and it would be twice as much as all the rest.
"""

import prctl  # noqa: F401

import workers.netns.main
import workers.netns.remove
import workers.netns.work  # noqa: F401
