"""Error replies of spawnd: the common ones of all control channels, and its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from supervisor.varlink.messages import (
    ControlError,
    ExpectedMore,
    Failed,
    InterfaceNotFound,
    InvalidParameter,
    Malformed,
    MethodNotFound,
    PermissionDenied,
)

__all__ = [
    "BadReply",
    "ConnectionLost",
    "ControlError",
    "ExpectedMore",
    "Failed",
    "InterfaceNotFound",
    "InvalidParameter",
    "Malformed",
    "MethodNotFound",
    "Needed",
    "NoControl",
    "NoLog",
    "NoSuchService",
    "NotRunning",
    "PermissionDenied",
    "ServiceError",
    "TimedOut",
    "TooManyClients",
]


class TooManyClients(ControlError):
    ends = True

    def __init__(self) -> None:
        super().__init__("io.spawnd.TooManyClients")


class NoSuchService(ControlError):
    """No service has this name, or matches the pattern."""

    def __init__(self, name: str, suggestion: str | None = None) -> None:
        """`suggestion` is the name that was probably meant."""
        super().__init__("io.spawnd.NoSuchService", name=name, suggestion=suggestion)


class NoLog(ControlError):
    """The service's output is not kept."""

    def __init__(self, name: str) -> None:
        super().__init__("io.spawnd.NoLog", name=name)


class Needed(ControlError):
    """Running services need this one; nothing was stopped."""

    def __init__(self, name: str, by: Sequence[str]) -> None:
        super().__init__("io.spawnd.Needed", name=name, by=list(by))


class OtherDefinitions(ControlError):
    """The definitions differ from those that the caller expects; `digest` is the digest of the present ones."""

    def __init__(self, digest: str) -> None:
        super().__init__("io.spawnd.OtherDefinitions", digest=digest)


# errors of a call that is passed on to a service


class ServiceError(ControlError):
    """The service's own error, with its parameters."""

    def __init__(self, name: str, error: str, parameters: Mapping[str, object]) -> None:
        super().__init__("io.spawnd.ServiceError", name=name, error=error, parameters=parameters)


class NoControl(ControlError):
    """The service has no `control = true`."""

    def __init__(self, name: str) -> None:
        super().__init__("io.spawnd.NoControl", name=name)


class NotRunning(ControlError):
    """The service does not listen on its control socket."""

    def __init__(self, name: str, state: str) -> None:
        super().__init__("io.spawnd.NotRunning", name=name, state=state)


class TimedOut(ControlError):
    """The service did not answer within `timeout` seconds."""

    def __init__(self, name: str, timeout: float) -> None:
        super().__init__("io.spawnd.TimedOut", name=name, timeout=timeout)


class ConnectionLost(ControlError):
    """The service closed the connection without a reply; it may have carried out the call."""

    def __init__(self, name: str) -> None:
        super().__init__("io.spawnd.ConnectionLost", name=name)


class BadReply(ControlError):
    """The service sent data that is not a valid reply."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__("io.spawnd.BadReply", name=name, message=message)
