"""What all netns workers have in common: the one that stays, and what its errands need each time.

For the process that forks them, which stays as well: so this is nobody's own memory.  pyroute2 is not among it: few
errands change anything, and it would be twice as much as all the rest.
"""

import prctl  # noqa: F401

import workers.netns.main
import workers.netns.remove
import workers.netns.work  # noqa: F401
