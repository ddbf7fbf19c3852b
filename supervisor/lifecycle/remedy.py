"""What an operator can do about a service that is not running.  Pure."""

from __future__ import annotations

from supervisor.lifecycle.cause import Kind, Link
from supervisor.lifecycle.life import State


def hint(root: Link) -> str:
    """What an operator can do about it, '' where there is nothing to do."""
    subject, name = root.subject, root.name
    if subject is None or root.kind in (Kind.RUNNING, Kind.STARTING, Kind.SHUTDOWN, Kind.REMOVED):
        return ""
    match subject.life.state:
        case State.STOPPING:
            return f"`spawnctl signal KILL {name}` does not wait for it" if subject.life.deadline is None else ""
        case State.BACKOFF:
            return f"{_look(root)}`spawnctl start {name}` tries again at once"
        case State.FAILED:
            return f"{_look(root)}once that is mended, `spawnctl start {name}` tries again"
        case State.DONE:
            return f"`spawnctl start {name}` runs it again"
    if root.kind is Kind.CONFLICT:
        return f"`spawnctl start {name}` starts it, and stops {root.other}"
    return f"`spawnctl start {name}` starts it"


def _look(root: Link) -> str:
    if root.kind is Kind.ADDRESS:
        return "`ss -lnptux` tells who has the address; "
    if root.kind is Kind.SETUP:
        return f"`spawnctl show {root.name}` tells where it is defined; "
    service = root.subject.service if root.subject is not None else None
    if service is not None and "log" in (service.stdout.kind, service.stderr.kind):
        return f"`spawnctl logs {root.name}` shows what it said; "
    return ""
