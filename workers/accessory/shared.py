"""The imports of the accessory, for spawnd: each accessory would have them as memory of its own otherwise."""

import workers.accessory.main  # noqa: F401
