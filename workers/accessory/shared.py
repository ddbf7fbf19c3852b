"""The imports of the accessory, made in spawnd: otherwise each accessory would have its own copy in memory."""

import workers.accessory.main  # noqa: F401
