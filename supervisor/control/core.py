"""The part of the supervisor that the control interface needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from supervisor.definitions.service import Service, Settings, Slot
from supervisor.errors import SpawnError
from supervisor.lifecycle.dependencies import Obstacle
from supervisor.lifecycle.life import Ended, Idleness, Life
from supervisor.lifecycle.plan import Plan
from supervisor.lifecycle.transaction import Outcome
from supervisor.log.ring import START, Piece, Position
from supervisor.process.launch import DescriptorRow
from supervisor.process.paths import Sight
from supervisor.process.run import Answer


class Unit(Protocol):
    """A service as it runs. An unknown text is empty."""

    @property
    def name(self) -> str: ...

    @property
    def service(self) -> Service:
        """The definition in force."""

    @property
    def next_service(self) -> Service | None:
        """The definition that takes effect once the present process is gone; None without one."""

    @property
    def life(self) -> Life: ...

    @property
    def internal(self) -> bool:
        """Whether the service is built in rather than defined."""

    @property
    def pid(self) -> int | None:
        """The process id of the main process; None without one."""

    @property
    def status_text(self) -> str:
        """The status text of the service (`STATUS=`)."""

    @property
    def last_exit(self) -> str:
        """How its last process ended, as text."""

    @property
    def last_call(self) -> str:
        """The result of the last call of a function that belongs to its start or its stop."""

    @property
    def disconnected(self) -> str:
        """The clients that were queued on a socket when another socket last took its place."""

    @property
    def flushed(self) -> int:
        """The number of datagrams that were dropped because the service failed with them."""

    @property
    def check_output(self) -> Sequence[str]:
        """The last lines of output of its check, if the check has failed."""

    @property
    def ended(self) -> Ended | None:
        """How its last process ended, as a value, or why its last start had no process; None: unknown."""

    @property
    def call_ended(self) -> Ended | None:
        """The result of that function, as a value."""

    @property
    def waits(self) -> str:
        """The reason for which the service is waiting."""

    @property
    def obstacle(self) -> Obstacle | None:
        """The same reason, as a value."""

    @property
    def undecided(self) -> str:
        """Why spawnd has not found the main process of a background daemon yet; otherwise empty."""

    @property
    def is_looked_at(self) -> bool:
        """Whether the paths of its sockets are looked at, while it sleeps: those that are gone are bound anew."""

    @property
    def stale(self) -> str:
        """Sockets and files that are no longer at their paths and could not be opened anew, as sentences."""

    @property
    def lacks_control_socket(self) -> bool:
        """Whether the socket that `call` uses is gone from its path."""

    @property
    def idle(self) -> Idleness | None:
        """Its use, while it runs and has `idle_stop`."""

    @property
    def session_table(self) -> int | None:
        """The table of the sessions of its acceptors; None without one."""

    def usage(self) -> tuple[int | None, float | None]:
        """Return memory in bytes and CPU time in seconds; None if unknown. Raises nothing."""

    def descriptors(self) -> list[DescriptorRow]:
        """Return all descriptors, 0 to 2 included, by number."""


class Manager(Protocol):
    """The services as they run. Callers pass only names that exist in `units`.

    When `start`, `stop` or `restart` returns, the order shows in `life`: a service at rest that is to start
    is at least waiting.
    """

    @property
    def units(self) -> Mapping[str, Unit]:
        """The services by name, in order of definition."""

    @property
    def settings(self) -> Settings: ...

    def services(self) -> Mapping[str, Service]:
        """Return the definitions by name, pending ones in place of present ones."""

    def start(self, names: Sequence[str]) -> None:
        """Start services with their dependencies."""

    def stop(self, names: Sequence[str], *, keeps_sessions: bool = False) -> None: ...

    def is_to_stop(self, name: str) -> bool:
        """Return whether a service has been ordered to stop, and that has neither succeeded nor failed."""

    def sleep(self, names: Sequence[str]) -> None: ...
    def restart(self, names: Sequence[str], *, ends_sessions: bool = False) -> None: ...

    def reset(self, names: Sequence[str]) -> None: ...

    def signal(self, name: str, signum: int) -> bool:
        """Send a signal to the main process of a service; return False if it has none."""

    def observe(self, callback: Callable[[Unit], None]) -> Callable[[], None]:
        """Call back when a unit appears or disappears, or when its state, its obstacle or its use changes.

        Call the returned function to end this.
        """

    def unix_time(self, monotonic: float) -> float:
        """Convert a time of the loop's clock to Unix time."""


class SideCalls(Protocol):
    """Processes beside running services."""

    def reload(self, name: str, done: Callable[[str], None]) -> None:
        """Ask the service to reload; calls `done("")` after a success, `done(error)` after a failure.

        Raises nothing.
        """

    def ask_status(self, name: str, done: Callable[[Answer], None]) -> None:
        """Call the function `status` of a service: `done` gets its answer or, if that is not ok, the error."""


class StateWriter(Protocol):
    """Saves the state that the next spawnd needs."""

    def flush(self) -> None:
        """Write the changes before a client learns of them."""


class Changes(Protocol):
    """The definition files."""

    def check(self, done: Callable[[int, list[str], Sequence[str]], None]) -> None:
        """Evaluate the definition files again: `done(number of services, problems, notices)`."""

    def plan(self, reloads: bool, done: Callable[[Plan | SpawnError], None]) -> None:
        """Evaluate the files again and plan the change to them.

        `reloads`: services with a reload_signal are to reload as well.
        """

    def apply(self, expect: str, reloads: bool, done: Callable[[Plan | SpawnError], None]) -> None:
        """Change to the files: `done` gets the plan after all of its steps but the reloads have begun.

        After an error nothing has changed. The error is a DefinitionsError. If `expect` is not empty and
        differs from the digest of the files, it is an OtherDefinitionsError.
        """


class Core(Protocol):
    """The supervisor, and its parts that do the work. No method blocks.

    Callers pass only names that exist in `manager.units`.
    """

    @property
    def manager(self) -> Manager: ...

    @property
    def side_calls(self) -> SideCalls: ...

    @property
    def writer(self) -> StateWriter: ...

    @property
    def changes(self) -> Changes: ...

    @property
    def denied(self) -> str:
        """The path of the file of addresses that traps deny, which may be missing."""

    @property
    def reexec(self) -> Callable[[Callable[[str], None]], None]:
        """Execute the installed version of spawnd; `done(problem)` is called only after a failure."""

    def inspect(self, name: str, done: Callable[[Mapping[Slot, Sight]], None]) -> None:
        """Compare the open files of a service with their paths: `done` gets the differences by slot."""

    def writes_files(self, name: str) -> bool:
        """Whether the table of a service has files that it writes to."""

    def reopen(self, name: str, done: Callable[[Outcome], None]) -> None:
        """Reopen the files that a service writes to, at their paths: `done` gets the outcome."""

    def output(self, name: str, position: Position = START) -> Piece | None:
        """Return the kept output of a service from a position on; None if the journal has it under that name.

        Raises LookupError if no output is kept. The service may have just been removed.
        """

    def end(self) -> None:
        """Stop all services, then end. Further calls have no effect."""
