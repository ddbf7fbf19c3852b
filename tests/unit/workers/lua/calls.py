"""A function of a module that is called as spawnd calls it, but for the process: here, or in a fork of the test."""

from __future__ import annotations

import json
import os

from tests.unit.waiting import read_until, wait_exit
from workers.function.main import Caller, Outcome

TEXT = 'module("m", package.seeall)\nfunction start()\n%s\nend'
LINE = 3  # of the body


def call(body: str) -> Outcome:
    caller = Caller()
    evaluated = caller.evaluate(TEXT % body, "/t.lua")
    return caller.call("m", "start") if evaluated.ok else evaluated


def said(body: str) -> str:
    """Return the result as text; fail if that is a failure."""
    outcome = call(body)
    assert outcome.ok, outcome
    return outcome.text


def failed(body: str) -> str:
    """The message of its error, without the place."""
    outcome = call(body)
    assert not outcome.ok, outcome
    return outcome.text.removeprefix(f"/t.lua:{LINE}: ")


def values(expression: str) -> str:
    """All values of an expression, with a `|` between them."""
    return said(f'local v = {{ {expression} }} for i = 1, 4 do v[i] = tostring(v[i]) end return table.concat(v, "|")')


def forked(body: str) -> Outcome:
    """In a process of its own, whose end is waited for: what changes a process must not change this one."""
    read_end, write_end = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            try:
                outcome = call(body)
                os.write(write_end, json.dumps([outcome.ok, outcome.text, outcome.trace]).encode() + b"\n")
            finally:
                os._exit(0)
        try:
            found = json.loads(read_until(read_end, lambda data: data.endswith(b"\n")))
        finally:
            wait_exit(pid)
        return Outcome(*found)
    finally:
        os.close(read_end)
        os.close(write_end)


def exit_status(body: str) -> int:
    """In a process of its own: its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open("/dev/null", os.O_WRONLY), 2)
            call(body)
        finally:
            os._exit(99)
    return wait_exit(pid)
