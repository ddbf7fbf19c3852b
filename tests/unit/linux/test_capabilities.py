from __future__ import annotations

import errno

import prctl
import pytest

from supervisor.linux.capabilities import cap_ambient_clear_all, cap_ambient_is_set, cap_ambient_raise
from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root

CAP_KILL = 5


@needs_root
def test_raise_and_clear() -> None:
    def raise_and_clear() -> list[bool]:
        prctl.cap_inheritable.kill = True
        seen = [cap_ambient_is_set(CAP_KILL)]
        cap_ambient_raise(CAP_KILL)
        seen.append(cap_ambient_is_set(CAP_KILL))
        cap_ambient_clear_all()
        return [*seen, cap_ambient_is_set(CAP_KILL)]

    assert in_child(raise_and_clear) == [False, True, False]


def test_only_what_is_inheritable_can_be_raised() -> None:
    def raise_without() -> int | None:
        prctl.cap_inheritable.kill = False
        try:
            cap_ambient_raise(CAP_KILL)
        except OSError as error:
            return error.errno
        return None

    assert in_child(raise_without) == errno.EPERM


def test_the_kernel_knows_no_such_capability() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        cap_ambient_is_set(63)
