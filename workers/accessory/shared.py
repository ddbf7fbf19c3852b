"""What each accessory would import anew after each start, and have as memory of its own."""

import workers.accessory.main  # noqa: F401
