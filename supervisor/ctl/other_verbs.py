"""Verbs of other tools: systemctl, supervisorctl, sv and docker.  Only a wrong verb imports this."""

from __future__ import annotations

_CHANGED = "`spawnctl plan` shows what changed definition files would do, and `spawnctl apply` does it"
_AT_BOOT = "the definition says whether a service starts with spawnd: `status = \"start\"` or `status = \"stop\"`"
_STATE = "`spawnctl status NAME` shows the state of a service; its exit status is 3 if the service does not run"
_LIST = "`spawnctl list` shows all services"
_LOGS = "`spawnctl logs -f NAME` shows the output of a service"
_RESTART = "`spawnctl restart NAME` restarts a service, `spawnctl reload NAME` sends its reload_signal"

OTHER_VERBS = {
    **dict.fromkeys(("daemon-reload", "reread", "update", "add", "remove", "link", "edit", "load"), _CHANGED),
    **dict.fromkeys(("enable", "disable", "mask", "unmask", "preset", "reenable", "is-enabled"), _AT_BOOT),
    **dict.fromkeys(("is-active", "is-failed", "is-running", "pid", "inspect"), _STATE),
    **dict.fromkeys(("ls", "ps", "list-units", "list-unit-files", "list-sockets", "avail", "units", "services"), _LIST),
    **dict.fromkeys(("tail", "maintail", "journal", "journalctl", "output"), _LOGS),
    **dict.fromkeys(
        ("try-restart", "condrestart", "reload-or-restart", "try-reload-or-restart", "force-reload"), _RESTART
    ),
    **dict.fromkeys(("kill", "hup", "send-signal"), "`spawnctl signal TERM NAME` sends a signal"),
    "cat": "`spawnctl show NAME` shows the definition of a service",
    "list-dependencies": "`spawnctl graph` shows what needs what",
    "reset-failed": "`spawnctl reset NAME` forgets the failures of a service",
    "daemon-reexec": "`spawnctl reexec` re-executes the supervisor as the installed version",
    "up": "`spawnctl start NAME` starts a service",
    "down": "`spawnctl stop NAME` stops a service",
    "once": "a program that runs once has `task = true` in its definition; `spawnctl start NAME` runs it",
    "events": "`spawnctl monitor` shows every change of a state",
    **dict.fromkeys(("halt", "poweroff", "quit", "exit"), "`spawnctl shutdown` stops all services and ends spawnd"),
}
