"""Keys of the set-up and of the end, in a real spawnd."""

from __future__ import annotations

import os

import pytest

from tests.daemon import wait_until
from tests.integration.conftest import Start

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: users")


def test_statuses_that_are_a_success_or_the_end(spawnd: Start) -> None:
    daemon = spawnd(
        """
        good = { exec = "/bin/sh", arg = { "-c", "exit 143" }, restart = "on-failure", success_status = 143 }
        task = { exec = "/bin/sh", arg = { "-c", "exit 3" }, task = true, success_status = { 3 } }
        final = { exec = "/bin/sh", arg = { "-c", "exit 78" }, no_restart_status = 78 }
        """
    )
    daemon.wait_state("good", "stopped")
    daemon.wait_state("task", "done")
    daemon.wait_state("final", "failed")
    assert "exited with status 78; it is not started again: no_restart_status lists that status" in daemon.ctl(
        "why", "final"
    ).stdout


@needs_root
def test_a_function_prepares_as_root_for_a_process_of_another_user(spawnd: Start) -> None:
    daemon = spawnd(
        """
        module("a", package.seeall)
        exec = "/bin/sh"
        arg = { "-c", "echo process $(id -u) $HOME; exec sleep 1000" }
        user, group = "daemon", "daemon"
        function_user = "root"
        login_env = true
        stdout = log()
        function start() print("function", proc.getuid(), os.getenv("HOME")) end
        """
    )
    daemon.wait_state("a", "running")
    wait_until(lambda: "process" in daemon.ctl("logs", "a").stdout, "its output")
    assert daemon.ctl("logs", "a").stdout.splitlines() == ["function\t0\tnil", "process 1 /usr/sbin"]


def test_arguments_are_expanded(spawnd: Start) -> None:
    daemon = spawnd(
        """
        a = {
          exec = "/bin/echo", arg = { "$WORDS", "<${FDS}>" }, env = { WORDS = "one two", FDS = "$LISTEN_FDS" },
          expand_env = true, task = true, stdout = log(),
        }
        """
    )
    daemon.wait_state("a", "done")
    assert wait_until(lambda: daemon.ctl("logs", "a").stdout, "its output") == "one two <$LISTEN_FDS>\n"
