from __future__ import annotations

import errno
import os

import pytest

from supervisor.errors import StepError
from supervisor.process.failure import failed, step


def test_an_oserror_becomes_the_step() -> None:
    with (
        pytest.raises(StepError, match=r"^cannot open '/nowhere': No such file or directory \(ENOENT\)$") as caught,
        step("open", "/nowhere"),
    ):
        os.stat("/nowhere")
    assert (caught.value.step, caught.value.path, caught.value.errno) == ("open", "/nowhere", errno.ENOENT)
    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_an_oserror_without_errno_keeps_its_words() -> None:
    with pytest.raises(StepError, match=r"^cannot bind udp 1.2.3.4:5: odd$"), step("bind udp 1.2.3.4:5"):
        raise OSError("odd")


def test_an_errno_without_a_name_is_not_named() -> None:
    assert str(failed("ask", "/x", 4095, "odd")) == "cannot ask '/x': odd"


def test_others_pass() -> None:
    with pytest.raises(KeyError), step("open"):
        raise KeyError
    inner = failed("bind", "/x", errno.EIO)
    with pytest.raises(StepError) as caught, step("open"):
        raise inner
    assert caught.value is inner
