"""What all netns workers have in common: all that the one that stays consists of, and no more than that."""

import workers.netns.main  # noqa: F401
