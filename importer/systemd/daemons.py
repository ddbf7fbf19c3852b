"""Daemons that can stay in the foreground, with the command line that makes them do so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from importer.systemd.words import Command

Foreground = Callable[[list[str]], list[str] | None]


def _with(*options: str, without: tuple[str, ...] = ()) -> Foreground:
    """Return a change that removes options and adds others in front, unless they are there."""

    def change(arguments: list[str]) -> list[str]:
        kept = [word for word in arguments if word not in without]
        return kept if all(option in kept for option in options) else [*options, *kept]

    return change


def _nginx(arguments: list[str]) -> list[str]:
    changed = [word.replace("daemon on;", "daemon off;") for word in arguments]
    return changed if any("daemon off;" in word for word in changed) else [*changed, "-g", "daemon off;"]


def _pg_ctlcluster(arguments: list[str]) -> list[str] | None:
    """`pg_ctlcluster 15-main start` and `pg_ctlcluster 15 main start` have the option `--foreground`."""
    if arguments[-1:] != ["start"]:
        return None
    return ["--foreground", *(word for word in arguments if word not in ("--foreground", "--skip-systemctl-redirect"))]


def _apachectl(arguments: list[str]) -> list[str] | None:
    return [*arguments[:-1], "-D", "FOREGROUND"] if arguments[-1:] == ["start"] else None


def _redis(arguments: list[str]) -> list[str]:
    kept = list(arguments)
    if "--daemonize" in kept:
        index = kept.index("--daemonize")
        del kept[index : index + 2]
    return [*kept, "--daemonize", "no"]


def _postfix(arguments: list[str]) -> list[str] | None:
    return [*arguments[:-1], "start-fg"] if arguments[-1:] == ["start"] else None


def _exim(arguments: list[str]) -> list[str] | None:
    return ["-bdf" if word == "-bd" else word for word in arguments] if "-bd" in arguments else None


FOREGROUND: dict[str, Foreground] = {
    "acpid": _with("-f"),
    "apache2ctl": _apachectl,
    "apachectl": _apachectl,
    "atd": _with("-f"),
    "bird": _with("-f"),
    "chronyd": _with("-n"),
    "collectd": _with("-f"),
    "cron": _with("-f"),
    "crond": _with("-n"),
    "dnsmasq": _with("--keep-in-foreground"),
    "dovecot": _with("-F"),
    "exim4": _exim,
    "haproxy": _with("-db", without=("-D",)),
    "irqbalance": _with("--foreground"),
    "keepalived": _with("--dont-fork"),
    "lighttpd": _with("-D"),
    "named": _with("-f"),
    "nginx": _nginx,
    "nmbd": _with("--foreground", "--no-process-group", without=("-D", "--daemon")),
    "ntpd": _with("-n"),
    "pg_ctlcluster": _pg_ctlcluster,
    "php-fpm": _with("--nodaemonize", without=("--daemonize", "-D")),
    "postfix": _postfix,
    "proftpd": _with("--nodaemon"),
    "redis-server": _redis,
    "rpcbind": _with("-f"),
    "rsyslogd": _with("-n"),
    "smartd": _with("-n"),
    "smbd": _with("--foreground", "--no-process-group", without=("-D", "--daemon")),
    "snmpd": _with("-f"),
    "squid": _with("--foreground"),
    "sshd": _with("-D"),
    "unbound": _with("-d"),
    "xinetd": _with("-dontfork"),
    "zabbix_agentd": _with("-f"),
}


def in_foreground(command: Command) -> Command | None:
    """Return the command that keeps this daemon in the foreground, None if there is none or it is unknown."""
    if command.program.startswith("/etc/init.d/"):
        return None  # a script of the same name, which puts the daemon into the background
    name = command.name
    change = FOREGROUND.get(name) or FOREGROUND.get(name.rstrip("0123456789."))  # php-fpm8.2
    arguments = change(list(command.arguments)) if change else None
    return None if arguments is None else replace(command, arguments=tuple(arguments))


STOP_SIGNALS = {  # commands that make a daemon send itself a signal: program, last words, signal
    ("nginx", ("-s", "quit")): "QUIT",
    ("nginx", ("-s", "stop")): "TERM",
    ("apachectl", ("graceful-stop",)): "WINCH",
    ("apache2ctl", ("graceful-stop",)): "WINCH",
    ("apachectl", ("stop",)): "TERM",
    ("apache2ctl", ("stop",)): "TERM",
    ("rndc", ("stop",)): "TERM",
    ("pg_ctlcluster", ("stop",)): "INT",
}
RELOAD_SIGNALS = {
    ("nginx", ("-s", "reload")): "HUP",
    ("apachectl", ("graceful",)): "USR1",
    ("apache2ctl", ("graceful",)): "USR1",
    ("rndc", ("reload",)): "HUP",
    ("pg_ctlcluster", ("reload",)): "HUP",
    ("postfix", ("reload",)): "HUP",
    ("squid", ("-k", "reconfigure")): "HUP",
}


def known_signal(command: Command, table: dict[tuple[str, tuple[str, ...]], str]) -> str:
    """Return the signal that a daemon's own command sends to it, '' if it is unknown."""
    for (name, last), signal in table.items():
        if command.name == name and command.arguments[-len(last) :] == last:
            return signal
    return ""
