"""What the reaper has done since it was started."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """Numbers of cgroups."""

    released: int = 0  # reported: deleted by us, or by somebody else after they ran empty
    deleted_by_others: int = 0  # of those
    unseen: int = 0  # deleted by somebody else before their statistics could be read
    repopulated: int = 0  # somebody moved in after they ran empty
    failed: int = 0  # attempts to delete one that the kernel refused for any other reason
