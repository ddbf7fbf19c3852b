"""Texts for operators."""

from __future__ import annotations

import errno
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest

from supervisor.definitions.service import Descriptor
from supervisor.lifecycle.cause import Kind, hint, output_hint
from supervisor.lifecycle.dependencies import Hold, Obstacle
from supervisor.lifecycle.life import Cause, Ended, State, Step, Then
from supervisor.lifecycle.wording import WORDS, answer, describe
from tests.unit.lifecycle.world import NOW, Subject, links_of, subject

WAITING, BACKOFF, FAILED, STOPPED, STOPPING = (
    State.WAITING, State.BACKOFF, State.FAILED, State.STOPPED, State.STOPPING,
)  # fmt: skip
ADDRESS = Ended.of_step("bind tcp 0.0.0.0:80", "", errno.EADDRINUSE, "Address already in use")
UDP, TCP = Descriptor("udp", host="0.0.0.0", port=69), Descriptor("tcp", host="::1", port=80)
FIFO = Descriptor("file", path="/run/f", access="r")

STOPPED_WELL = Ended(status=0, function="stop")
BAD_LINE = Ended.of_step("read", "/etc/a.env", errno.EINVAL, "line 2 is not KEY=value", 2)
OUT_OF_MEMORY = Ended(signum=9, signal="KILL", out_of_memory=True)


def told(*subjects: Subject) -> str:
    return answer(links_of(*subjects), NOW, "2026-07-28 10:00:00")


def advice(*subjects: Subject) -> str:
    return hint(links_of(*subjects)[-1])


def waits_for(*names: str) -> list[Subject]:
    """Services that wait for the next one each, but for the last name."""
    return [subject(name, WAITING, keys={"depends": (other,)}) for name, other in pairwise(names)]


def failing(name: str = "a", state: State = BACKOFF, **more: Any) -> Subject:
    more.setdefault("ended", Ended(status=3))
    more.setdefault("cause", Cause.EXIT)
    more.setdefault("failures", 3)
    return subject(name, state, deadline=NOW + 2.345, **more)


# the whole sentence

SENTENCES: list[tuple[list[Subject], str]] = [
    ([subject("a", State.RUNNING, cause=Cause.START)], "a has been running since 2026-07-28 10:00:00"),
    (
        [subject("a", State.RUNNING, cause=Cause.EXIT, restarts=1, ended=Ended(status=3))],
        "a has been running since 2026-07-28 10:00:00; restarted because its process exited with status 3",
    ),
    (
        [subject("a", State.RELOADING, cause=Cause.WATCHDOG, restarts=4, keys={"watchdog": 5.0})],
        "a has been running since 2026-07-28 10:00:00; restarted 4 times, the last time because it missed its "
        "watchdog (watchdog is 5 s)",
    ),
    (
        [subject("a", State.RUNNING, cause=Cause.RESTART, stop_failure="stop failed: busy")],
        "a has been running since 2026-07-28 10:00:00; restarted because it was requested; stop failed: busy",
    ),
    (
        [subject("a", State.RUNNING, cause=Cause.DEFINITION)],
        "a has been running since 2026-07-28 10:00:00; restarted because its definition has changed",
    ),
    (
        [subject("a", State.RUNNING, cause=Cause.DEFINITION, detail="/etc/a was replaced")],
        "a has been running since 2026-07-28 10:00:00; restarted because /etc/a was replaced",
    ),
    (
        [replace(subject("a", State.RUNNING), stale="stream '/x' was deleted; the old socket stays")],
        "a has been running since 2026-07-28 10:00:00; stream '/x' was deleted; the old socket stays",
    ),
    (
        [replace(subject("a", State.RUNNING, cause=Cause.RESTART), stale="file '/x' was deleted")],
        "a has been running since 2026-07-28 10:00:00; restarted because it was requested; file '/x' was deleted",
    ),
    ([subject("a", State.DONE, cause=Cause.EXIT)], "a is done: it is a task, and has ended well"),
    (
        [failing()],
        "a is not running: its process exited with status 3; failure 3 of 10, next start in 2.35 s",
    ),
    (
        [failing(keys={"start_limit": None}, ended=Ended(signum=11, signal="SEGV", core=True))],
        "a is not running: its process was killed by SEGV (core dumped); failure 3, next start in 2.35 s",
    ),
    (
        [failing(state=FAILED)],
        "a has failed: its process exited with status 3; given up after 3 failures in a row",
    ),
    (
        [failing(state=FAILED, keys={"restart": "never"}, ended=Ended.of_step("exec", "/x", 2, "No such file"))],
        """a has failed: it could not exec '/x': No such file; it is not started again: restart = "never\"""",
    ),
    (
        [*waits_for("web", "db"), failing("db", FAILED)],
        "web is not running: it needs db, which has failed: its process exited with status 3; given up after 3 "
        "failures in a row",
    ),
    (
        [*waits_for("web", "app", "db"), subject("db", STOPPED, cause=Cause.STOP)],
        "web is not running: it needs app, which needs db, which is not running: an order stopped it",
    ),
    (
        [*waits_for("web", "app", "api", "db"), subject("db", STOPPED, cause=Cause.STOP)],
        "web is not running: it needs app, which waits for db in the end, which is not running: an order stopped it",
    ),
    (waits_for("web", "db"), "web is not running: it needs db, which is not defined"),
    (
        [*waits_for("web", "job"), subject("job", State.RUNNING, keys={"task": True})],
        "web is not running: it needs job, which is running",
    ),
    (
        [subject("a", STOPPING, then=Then.START, cause=Cause.DEFINITION, deadline=NOW + 7)],
        "a is being restarted: its definition has changed; its process has 7 s left to end",
    ),
]


@pytest.mark.parametrize(("subjects", "expected"), SENTENCES, ids=[text for _, text in SENTENCES])
def test_answers(subjects: list[Subject], expected: str) -> None:
    assert told(*subjects) == expected


# each service of the chain

NEXT = "; failure 3 of 10, next start in 2.35 s"
TEXTS: list[tuple[Subject, str]] = [
    (subject("a", WAITING), "it is about to be started"),
    (subject("a", WAITING, then=Then.SLEEP), "its sockets are about to be opened"),
    (
        subject("a", STOPPING, cause=Cause.SLEEP, then=Then.SLEEP, deadline=NOW + 5),
        "an order puts it to sleep; its process has 5 s left to end",
    ),
    (
        subject("a", State.ASLEEP, cause=Cause.EXIT, keys={"fd": (UDP, TCP)}),
        "it starts with the first client of udp 0.0.0.0:69 or tcp [::1]:80",
    ),
    (subject("a", State.ASLEEP, keys={"stdin": FIFO}), "it starts with the first client of file /run/f r"),
    (subject("a", State.STARTING), "it is being set up"),
    (
        subject("a", State.STARTING, step=Step.CHECK, deadline=NOW + 80, keys={"check": ("/bin/c",)}),
        "its check command runs (/bin/c); it has 80 s left",
    ),
    (
        subject("a", State.STARTING, step=Step.READY, keys={"ready": "notify"}),
        'it has not said yet that it is ready (ready = "notify")',
    ),
    (subject("a", STOPPED), "it has not been started yet"),
    (
        subject("a", STOPPED, keys={"autostart": False}),
        'its definition has status = "stop", and it has not been started',
    ),
    (subject("a", STOPPED, cause=Cause.RESET), "it had failed, and that was reset"),
    (subject("a", STOPPED, cause=Cause.CONFLICT, other="b"), "it conflicts with b, which was started"),
    (
        subject("a", STOPPED, cause=Cause.DEFINITION, keys={"autostart": False}),
        'its definition has status = "stop" now',
    ),
    (subject("a", STOPPED, cause=Cause.REMOVED), "it is not defined any more"),
    (subject("a", STOPPED, cause=Cause.SHUTDOWN), "the supervisor is about to end"),
    (
        subject("a", STOPPED, cause=Cause.EXIT, ended=Ended(status=0), keys={"restart": "on-failure"}),
        'its process exited with status 0, and restart = "on-failure"',
    ),
    (subject("a", STOPPING, cause=Cause.STOP), "an order stopped it; its process has unlimited time to end"),
    (
        subject("a", STOPPING, cause=Cause.STOP, killed=True),
        "an order stopped it; its processes were killed and are not gone yet",
    ),
    (
        subject("a", STOPPING, cause=Cause.SIGNAL, then=Then.START, deadline=NOW - 1),
        "the supervisor got its restart_signal; its process has 0 s left to end",
    ),
    (subject("a", FAILED, failures=1), "its process ended in an unknown way; given up after 1 failure"),
    (failing(cause=Cause.CHECK), f"its check exited with status 3{NEXT}"),
    (
        failing(cause=Cause.CHECK_LATE, keys={"start_timeout": 5.0}),
        f"its check was not finished in time (start_timeout is 5 s){NEXT}",
    ),
    (
        failing(cause=Cause.NOT_READY, keys={"start_timeout": 90.0}),
        f"it was not ready in time (start_timeout is 90 s){NEXT}",
    ),
    (failing(cause=Cause.NOT_READY, keys={"start_timeout": None}), f"it was not ready in time{NEXT}"),
    (
        failing(cause=Cause.FUNCTION, call_ended=Ended(status=1, function="stop", cause="busy")),
        f"its function stop failed: busy{NEXT}",
    ),
    (
        failing(cause=Cause.FUNCTION, ended=Ended(status=1, function="stop", cause="busy")),  # of an older version
        f"its function stop failed: busy{NEXT}",
    ),
    (
        failing(cause=Cause.FUNCTION, call_ended=replace(Ended.of_step("fork", "", 11, "no"), function="start")),
        f"its function start could not fork: no{NEXT}",
    ),
    (failing(stop_failure="stop failed: busy"), f"its process exited with status 3; stop failed: busy{NEXT}"),
    (failing(ended=Ended(status=3), call_ended=STOPPED_WELL), f"its process exited with status 3{NEXT}"),
    (failing(ended=ADDRESS), f"it could not bind tcp 0.0.0.0:80: Address already in use{NEXT}"),
    (
        failing(ended=OUT_OF_MEMORY, keys={"resources": {"memory_max": "67108864"}}),
        f"it ran out of memory (memory_max is 64 MiB): its process was killed by KILL{NEXT}",
    ),
    (
        failing(ended=Ended(status=1, out_of_memory=True), keys={"resources": {"memory_max": "max"}}),
        f"it ran out of memory: its process exited with status 1{NEXT}",
    ),
    (subject("a", WAITING, obstacle=Obstacle(Hold.ADDRESS, "b")), "it needs an address that b is about to give up"),
    (subject("a", WAITING, keys={"depends": ("b",)}), "it needs b"),
]


@pytest.mark.parametrize(("subject", "expected"), TEXTS, ids=[text for _, text in TEXTS])
def test_texts(subject: Subject, expected: str) -> None:
    assert describe(links_of(subject)[0], NOW) == expected


def test_texts_of_what_another_one_holds_back() -> None:
    after = links_of(subject("a", WAITING, keys={"after": ("b",)}), subject("b", State.STARTING))
    assert describe(after[0], NOW) == "it comes after b"
    rival = links_of(subject("a", WAITING, keys={"conflicts": ("b",)}), subject("b", STOPPING, cause=Cause.STOP))
    assert describe(rival[0], NOW) == "it conflicts with b"


def test_every_life_is_put_into_words() -> None:
    for state, cause, then, step in product(State, Cause, Then, Step):
        one = subject("a", state, cause=cause, then=then, step=step, failures=1)
        assert told(one).startswith("a ")
        hint(links_of(one)[0])
    assert {*WORDS, Kind.DEPENDENCY, Kind.ORDER, Kind.UNDEFINED} == {*Kind}


# what to do


@pytest.mark.parametrize(
    ("subjects", "expected"),
    [
        ([subject("a", State.RUNNING)], ""),
        (
            [replace(subject("a", State.RUNNING), stale="file '/x' was deleted")],
            "correct that, then run `spawnctl restart a`",
        ),
        ([subject("a", WAITING)], ""),
        ([subject("a", State.STARTING)], ""),
        ([subject("a", STOPPED, cause=Cause.SHUTDOWN)], ""),
        ([subject("a", STOPPED, cause=Cause.REMOVED)], ""),
        (waits_for("a", "b"), ""),
        ([subject("a", STOPPING, cause=Cause.STOP, deadline=NOW + 1)], ""),
        ([subject("a", STOPPING, cause=Cause.STOP)], "`spawnctl signal KILL a` does not wait for it"),
        ([subject("a", STOPPED)], "`spawnctl start a` starts it"),
        (
            [subject("a", STOPPING, cause=Cause.STOP, killed=True)],
            "the kernel holds them, perhaps for a file system that does not answer: see /proc/PID/stack",
        ),
        ([subject("a", State.DONE, cause=Cause.EXIT)], "`spawnctl start a` runs it again"),
        ([subject("a", STOPPED, cause=Cause.CONFLICT, other="b")], "`spawnctl start a` starts it, and stops b"),
        ([*waits_for("a", "b"), failing("b")], "`spawnctl start b` tries again at once"),
        ([failing(state=FAILED)], "fix that, then run `spawnctl start a`"),
        ([failing(ended=ADDRESS)], "find the process with `ss -lnptux`; `spawnctl start a` tries again at once"),
        (
            [failing(ended=BAD_LINE, keys={"file": "/etc/a.lua", "line": 3})],
            "correct line 2 of /etc/a.env; `spawnctl start a` tries again at once",
        ),
        (
            [failing(ended=replace(BAD_LINE, line=0), keys={"file": "/etc/a.lua", "line": 3})],
            "see /etc/a.lua:3; `spawnctl start a` tries again at once",
        ),
        (
            [failing(ended=Ended.of_step("exec", "/x", 2, "No such file"))],
            "`spawnctl start a` tries again at once",
        ),
        (
            [
                failing(
                    ended=Ended.of_step("change directory", "/x", 2, "No such file"),
                    keys={"file": "/etc/a.lua", "line": 3, "lines": {"cwd": 7}},
                )
            ],
            "see /etc/a.lua:7; `spawnctl start a` tries again at once",
        ),
        (
            [
                failing(
                    ended=Ended.of_step("fork", "", 11, "no processes"), keys={"file": "/etc/a.lua", "line": 3}
                )
            ],
            "see /etc/a.lua:3; `spawnctl start a` tries again at once",
        ),
        (
            [failing(ended=Ended(status=0), failures=6)],
            "it ends with status 0 each time: is it a task (`task = true`), or does it go into the background "
            "(`forking = true`)?; "
            "`spawnctl start a` tries again at once",
        ),
        (
            [failing(ended=Ended(status=0, left=2), failures=1)],
            "does it go into the background? Have it stay in the foreground, or add `forking = true`; "
            "if it has done its work by then, add `task = true`; `spawnctl start a` tries again at once",
        ),
        (
            [failing(ended=Ended(status=0, left=2), failures=1, keys={"forking": True})],
            "`pid_file` tells which of its processes is to be supervised; "
            "`spawnctl start a` tries again at once",
        ),
        (
            [subject("a", STOPPED, cause=Cause.EXIT, ended=Ended(status=0, left=2), keys={"restart": "on-failure"})],
            "does it go into the background? Have it stay in the foreground, or add `forking = true`; "
            "if it has done its work by then, add `task = true`; `spawnctl start a` starts it",
        ),
        (
            [failing(keys={"stderr": Descriptor("log")})],
            "`spawnctl logs a` shows what it said; `spawnctl start a` tries again at once",
        ),
        (
            [failing(keys={"stdout": Descriptor("log"), "stderr": Descriptor("file", path="/var/log/a")})],
            "`spawnctl logs a` shows what it said; its stderr goes to '/var/log/a'; "
            "`spawnctl start a` tries again at once",
        ),
        (
            [failing(keys=dict.fromkeys(("stdout", "stderr"), Descriptor("file", path="/var/log/a")))],
            "its output goes to '/var/log/a'; `spawnctl start a` tries again at once",
        ),
    ],
)
def test_hints(subjects: list[Subject], expected: str) -> None:
    assert advice(*subjects) == expected


LOST = "its output is not kept: add `stderr = log()`"
WEB = {"exec": "/srv/web"}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (failing(keys=WEB), LOST),
        (failing(state=FAILED, keys=WEB), LOST),
        (failing(keys={**WEB, "task": True}), LOST),
        (failing(keys=WEB, ended=OUT_OF_MEMORY), LOST),
        (failing(keys=WEB, cause=Cause.CHECK), ""),  # that of a check is
        (failing(keys=WEB, cause=Cause.NOT_READY), LOST),
        (failing(keys={**WEB, "stdout": Descriptor("log")}), "its stderr is not kept: add `stderr = log()`"),
        (failing(keys={**WEB, "stderr": Descriptor("log")}), ""),
        (failing(keys={**WEB, "lines": {"stderr": 3}}), ""),
        (failing(keys={"worker": "accessory"}), ""),
        (failing(keys={}, cause=Cause.FUNCTION), ""),
        (failing(keys=WEB, ended=Ended.of_step("exec", "/x", 2, "No such file")), ""),
        (failing(keys=WEB, ended=ADDRESS), ""),
        (subject("a", STOPPED, keys=WEB), ""),
        (subject("a", State.RUNNING, keys=WEB), ""),
    ],
)
def test_how_to_keep_the_output_of_what_failed(one: Subject, expected: str) -> None:
    assert output_hint(one) == expected
    assert ("is not kept" in advice(one)) is bool(expected)


def test_what_was_restarted_after_a_failure_has_said_nothing_either() -> None:
    assert advice(subject("a", State.RUNNING, cause=Cause.EXIT, restarts=1, ended=Ended(status=3), keys=WEB)) == LOST
    assert advice(subject("a", State.RUNNING, cause=Cause.RESTART, restarts=1, ended=Ended(status=3), keys=WEB)) == ""
