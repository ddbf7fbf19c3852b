"""The errors of a control channel: what a call can be answered with instead of a result."""

from __future__ import annotations

from supervisor.errors import SpawnError


class ControlError(SpawnError):
    """A call is answered with error `name`.  `ends`: and the connection is closed after that."""

    ends = False

    def __init__(self, error: str, /, **parameters: object) -> None:
        detail = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        super().__init__(f"{error}({detail})")
        self.name = error
        self.parameters = parameters


# the caller's mistakes, named by the protocol itself


class MethodNotFound(ControlError):
    def __init__(self, method: str) -> None:
        super().__init__("org.varlink.service.MethodNotFound", method=method)


class InterfaceNotFound(ControlError):
    def __init__(self, interface: str) -> None:
        super().__init__("org.varlink.service.InterfaceNotFound", interface=interface)


class InvalidParameter(ControlError):
    def __init__(self, parameter: str) -> None:
        super().__init__("org.varlink.service.InvalidParameter", parameter=parameter)


class ExpectedMore(ControlError):
    """The method has many replies, and the caller takes one."""

    def __init__(self) -> None:
        super().__init__("org.varlink.service.ExpectedMore")


class PermissionDenied(ControlError):
    ends = True

    def __init__(self) -> None:
        super().__init__("org.varlink.service.PermissionDenied")


# what spawnd and its workers say alike


class Malformed(ControlError):
    """What came is no call."""

    ends = True

    def __init__(self, message: str) -> None:
        super().__init__("io.spawnd.Malformed", message=message)


class Failed(ControlError):
    def __init__(self, message: str) -> None:
        super().__init__("io.spawnd.Failed", message=message)
