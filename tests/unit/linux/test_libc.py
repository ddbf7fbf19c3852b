from __future__ import annotations

import ctypes
import errno

import pytest

from supervisor.linux.libc import check, function


def test_an_error_has_errno_text_and_path() -> None:
    chdir = function("chdir", ctypes.c_char_p)
    with pytest.raises(FileNotFoundError) as caught:
        check(chdir(b"/nowhere"), "/nowhere")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.strerror == "No such file or directory"
    assert caught.value.filename == "/nowhere"


def test_a_result_is_passed_on() -> None:
    assert check(7) == 7


def test_argument_types_are_not_shared() -> None:
    first = function("syscall", ctypes.c_long)
    second = function("syscall", ctypes.c_int, ctypes.c_int)
    assert first.argtypes == (ctypes.c_long,)
    assert second.argtypes == (ctypes.c_int, ctypes.c_int)
