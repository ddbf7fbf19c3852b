"""Texts that are evaluated once for many calls."""

from __future__ import annotations

import json

from workers.function.main import Function

ORDER = {"shared": "key", "path": "/m.lua", "module": "m", "function": "start"}


def shared(text: str) -> Function:
    function = Function()
    function.share("key", json.dumps({"path": "/m.lua", "text": text}).encode())
    return function


def test_a_text_that_is_shared() -> None:
    function = shared("module(..., package.seeall) function start() return _NAME end")
    assert function._shared.keys() == {"key"}
    assert function._call(ORDER).text == "m"


def test_one_that_takes_long_has_its_time_in_each_call() -> None:
    """Also where it goes on after an error: what came of that would be in all of them."""
    text = """
    module("m", package.seeall)
    _fine = pcall(function() local stop = os.clock() + 0.2 while os.clock() < stop do end end)
    function start() return tostring(_fine) end
    """
    function = shared(text)
    assert not function._shared
    assert function._call(ORDER).text == "true"


def test_a_loop_that_would_be_compiled_is_interrupted() -> None:
    function = shared('module("m", package.seeall) for i = 1, 1e9 do end function start() end')
    assert not function._shared


def test_os_is_whole_in_a_function_wherever_it_was_named() -> None:
    start = 'function start() return type(os.execute) .. date("%%") end'
    text = f'local os, date = os, os.date module("m", package.seeall) {start}'
    assert shared(text)._call(ORDER).text == "function%"
