"""The imports that all netns workers have in common, for the resident worker and for each of its tasks.

The process that forks the workers is resident as well, so these pages are shared by all. pyroute2 is not
imported: few tasks change anything, and it would take twice as much as everything else.
"""

import prctl  # noqa: F401

import workers.netns.main
import workers.netns.remove
import workers.netns.work  # noqa: F401
