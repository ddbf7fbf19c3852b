"""Known daemons in the foreground, and commands that stand for a signal."""

from __future__ import annotations

import pytest

from importer.systemd import daemons
from importer.systemd.commands import _sent, _start_stop_daemon, is_check
from importer.systemd.steps import Step
from importer.systemd.words import commands


@pytest.mark.parametrize(
    ("written", "arguments"),
    [
        ("/usr/sbin/nginx", "-g|daemon off;"),
        ("/usr/sbin/nginx -g 'daemon on; pid /run/x;'", "-g|daemon off; pid /run/x;"),
        ("/usr/bin/pg_ctlcluster 15 main start", "--foreground|15|main|start"),
        ("/usr/sbin/sshd -D -p 22", "-D|-p|22"),
        ("/usr/sbin/smbd -D --debug", "--foreground|--no-process-group|--debug"),
        ("/usr/bin/redis-server /etc/r.conf --daemonize yes", "/etc/r.conf|--daemonize|no"),
        ("/usr/sbin/php-fpm8.2 --daemonize", "--nodaemonize"),
        ("/usr/sbin/exim4 -bd -q30m", "-bdf|-q30m"),
        ("/usr/sbin/apachectl start", "-D|FOREGROUND"),
        ("/usr/sbin/postfix start", "start-fg"),
        ("/usr/sbin/chronyd -F 1", "-n|-F|1"),
    ],
)
def test_in_the_foreground(written: str, arguments: str) -> None:
    (command,) = commands(written)
    found = daemons.in_foreground(command)
    assert found is not None
    assert "|".join(found.arguments) == arguments


@pytest.mark.parametrize(
    "written", ["/usr/sbin/legacyd", "/etc/init.d/dnsmasq start", "/usr/sbin/apachectl restart", "/usr/sbin/exim4 -q"]
)
def test_no_foreground_is_known(written: str) -> None:
    assert daemons.in_foreground(commands(written)[0]) is None


@pytest.mark.parametrize(
    ("written", "signal"),
    [
        ("/bin/kill -HUP $MAINPID", "HUP"),
        ("kill -s SIGUSR2 ${MAINPID}", "USR2"),
        ("/bin/kill --signal=QUIT $MAINPID", "QUIT"),
        ("/bin/kill -sINT -- $MAINPID", "INT"),
        ("/bin/kill -9 $MAINPID", "KILL"),
        ("/bin/kill $MAINPID", "TERM"),
        ("/bin/kill -HUP 1", ""),
        ("/bin/kill -NOPE $MAINPID", ""),
        ("/usr/bin/pkill -HUP $MAINPID", ""),
    ],
)
def test_a_signal_to_the_main_process(written: str, signal: str) -> None:
    assert _sent(commands(written)[0]) == signal


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("start-stop-daemon --stop --retry QUIT/5 --pidfile /x", ("QUIT", 5.0)),
        ("start-stop-daemon -K --retry 30", ("TERM", 30.0)),
        ("start-stop-daemon --stop --signal INT --pidfile /x", ("INT", 0.0)),
        ("start-stop-daemon --start --exec /x", None),
        ("start-stop-daemon --stop --signal NOPE", None),
    ],
)
def test_start_stop_daemon(written: str, found: tuple[str, float] | None) -> None:
    assert _start_stop_daemon(commands(written)[0]) == found


@pytest.mark.parametrize(
    ("written", "is_one"),
    [
        ("/usr/sbin/nginx -t -q", True), ("/usr/sbin/named-checkconf", True), ("/etc/init.d/d checkconfig", True),
        ("-/usr/sbin/nginx -t", False), ("+/usr/sbin/nginx -t", False), ("/bin/mkdir -p /x", False),
        ("/usr/bin/test -x /x", True),
    ],
)  # fmt: skip
def test_checks(written: str, is_one: bool) -> None:
    assert is_check(commands(written)[0]) is is_one


def test_variables_of_steps() -> None:
    (command,) = commands("/bin/a $B x${C}y 'it''s $D `e` \"f\" $$G' plain")
    assert Step(command).line(None) == (
        'assert(proc.run("/bin/sh", "-c", '
        '"exec /bin/a $B \\"x${C}y\\" \\"its \\\\$D \\\\`e\\\\` \\\\\\"f\\\\\\" \\\\$G\\" plain"))'
    )
