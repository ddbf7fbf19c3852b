"""Messages about failing starts: at once, one line each, with a place and a question where these help."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.daemon import wait_until
from tests.integration.conftest import Start

Program = Callable[[str, str], str]
ENV = 'env = { PATH = "/bin:/usr/bin" }'
QUICK = 'backoff = { first = "10ms", max = "20ms" }'


def test_a_ready_fd_that_is_closed_ends_the_start_at_once(spawnd: Start, program: Program) -> None:
    closes = program("closes", "#!/bin/sh\nexec 3>&-\nexec sleep 100000\n")
    keys = f'exec = "{closes}", {ENV}, ready = "fd", ready_fd = 3, start_timeout = false, start_limit = 1'
    daemon = spawnd(f"s = {{ {keys} }}")
    daemon.wait_state("s", "failed")
    assert "closed its ready_fd without saying that it is ready" in daemon.log()


def test_one_that_ends_before_it_is_ready_has_the_reason_of_its_end(spawnd: Start, program: Program) -> None:
    ends = program("ends", "#!/bin/sh\nexit 3\n")
    daemon = spawnd(f's = {{ exec = "{ends}", ready = "fd", ready_fd = 3, start_limit = 1 }}')
    daemon.wait_state("s", "failed")
    assert "s: failed: exited with status 3 before it was ready; 1 failure" in daemon.log()


def test_one_that_ends_well_again_and_again_is_asked_about(spawnd: Start) -> None:
    daemon = spawnd(f's = {{ exec = "/bin/true", {QUICK}, start_limit = 8, healthy_after = "1m" }}')
    daemon.wait_state("s", "failed")
    question = "is it a task (`task = true`), or does it go into the background (`forking = true`)?"
    assert daemon.log().count(question) == 1
    assert question in daemon.ctl("why", "s").stdout


def test_why_tells_where_the_key_is_that_could_not_be_done(spawnd: Start) -> None:
    daemon = spawnd('s = {\n  exec = "/bin/true",\n  cwd = "/nonexistent",\n  start_limit = 1\n}\n')
    daemon.wait_state("s", "failed")
    assert f"see {daemon.definitions}:3" in json.loads(daemon.ctl("why", "--json", "s").stdout)["hint"]


def test_a_retry_has_one_line_and_health_one_more(spawnd: Start, program: Program) -> None:
    script = "#!/bin/sh\necho >> @/out/runs\n[ $(wc -l < @/out/runs) -gt 3 ] || exit 1\nexec sleep 100000\n"
    daemon = spawnd('t = { exec = "/bin/sleep", arg = { "100000" } }')
    path = program("script", script.replace("@", str(daemon.folder)))
    daemon.definitions.write_text(f's = {{ exec = "{path}", {ENV}, {QUICK}, healthy_after = "200ms" }}')
    assert daemon.ctl("apply", "--no-wait").returncode == 0
    pid = daemon.wait_running("s")
    wait_until(lambda: daemon.log().count("s: running, pid ") >= 2, "the line of its health")
    pid = daemon.wait_running("s")
    lines = [line for line in daemon.log().splitlines() if " s: " in line or "Starting s" in line]
    assert sum("exited with status 1; failure" in line for line in lines) == 3
    assert sum("Starting s" in line for line in lines) == 1
    assert sum(f"s: running, pid {pid}" in line for line in lines) == 1
    assert sum("s: running" in line for line in lines) == 2, "the first start, and the last"
