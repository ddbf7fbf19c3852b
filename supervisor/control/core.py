"""What the control interface needs of the supervisor's core, and nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from supervisor.definitions.service import Service, Settings
from supervisor.errors import SpawnError
from supervisor.lifecycle.dependencies import Obstacle
from supervisor.lifecycle.ended import Ended
from supervisor.lifecycle.life import Life
from supervisor.lifecycle.plan import Plan
from supervisor.log.ring import START, Piece, Position
from supervisor.process.answer import Answer


@dataclass(frozen=True, slots=True)
class DescriptorRow:
    """One descriptor of a service: `what` is for people (`udp 127.0.0.1:69`), `stored` ones are in its store."""

    number: int
    name: str
    what: str
    stored: bool = False


class Unit(Protocol):
    """One service as it runs.  Texts are empty where there is nothing to say."""

    @property
    def name(self) -> str: ...

    @property
    def service(self) -> Service:
        """The definition in force."""

    @property
    def next_service(self) -> Service | None:
        """The definition that is to be in force once its present process is gone; None: there is no other."""

    @property
    def life(self) -> Life: ...

    @property
    def internal(self) -> bool:
        """Whether it is built in rather than defined."""

    @property
    def pid(self) -> int | None:
        """The main process, None where there is none."""

    @property
    def status_text(self) -> str:
        """What the service says of itself (`STATUS=`)."""

    @property
    def last_exit(self) -> str:
        """How its last process ended."""

    @property
    def ended(self) -> Ended | None:
        """The same, or why no process came of its last start; None where that is not known."""

    @property
    def waits(self) -> str:
        """What it waits for, while it is waiting."""

    @property
    def obstacle(self) -> Obstacle | None:
        """The same: what holds it back."""

    def usage(self) -> tuple[int | None, float | None]:
        """Memory in bytes and CPU time in seconds, None where unknown.  Raises nothing."""

    def descriptors(self) -> list[DescriptorRow]:
        """All, 0 to 2 included, by number."""


class Core(Protocol):
    """The supervisor.  Names given to it exist in `units`; none of its methods blocks.

    When `start`, `stop` or `restart` returns, the order shows in `life`: what was at rest
    and is to start is at least waiting.
    """

    @property
    def units(self) -> Mapping[str, Unit]:
        """By name, in order of definition."""

    @property
    def settings(self) -> Settings: ...

    def start(self, names: Sequence[str]) -> None:
        """Start them, and what they depend on."""

    def stop(self, names: Sequence[str]) -> None: ...

    def restart(self, names: Sequence[str]) -> None: ...

    def reset(self, names: Sequence[str]) -> None: ...

    def reload(self, name: str, done: Callable[[str], None]) -> None:
        """Ask the service to reload; `done("")` when it has, `done(error)` when not.  Raises nothing."""

    def ask_status(self, name: str, done: Callable[[Answer], None]) -> None:
        """Call its function `status`: `done` with what it says; where that is not ok, with what is wrong."""

    def signal(self, name: str, signum: int) -> bool:
        """Send a signal to its main process; False: it has none."""

    def observe(self, callback: Callable[[Unit], None]) -> Callable[[], None]:
        """Call back when a unit is new or gone, and after every change of a state or of what one waits for.

        Until the function that is returned is called.
        """

    def end(self) -> None:
        """Stop everything, then end; asked again, nothing more."""

    def settle(self) -> None:
        """Write down what has changed: of what a client is told, the next spawnd has to know."""

    def check(self, done: Callable[[int, list[str]], None]) -> None:
        """Evaluate the definition files anew: `done(number of services, problems)`."""

    def plan(self, reloads: bool, done: Callable[[Plan | SpawnError], None]) -> None:
        """Evaluate them anew: what it takes to change to them; `reloads`: services with a reload_signal reload too."""

    def apply(self, expect: str, reloads: bool, done: Callable[[Plan | SpawnError], None]) -> None:
        """Change to them: the plan, of which everything but the reloads has been set off.

        An error is a DefinitionsError or, where `expect` is not empty and not their digest, an
        OtherDefinitionsError, and nothing has changed.
        """

    def services(self) -> Mapping[str, Service]:
        """The definitions by name; one that waits for the process of the last one to be gone is there already."""

    def reexec(self, done: Callable[[str], None]) -> None:
        """Execute the installed version of spawnd; `done(problem)` where that fails, else nobody is left to call it."""

    def output(self, name: str, position: Position = START) -> Piece | None:
        """What is kept of its output from a position on; None: it is in the journal under its name.

        Raises LookupError where it is kept nowhere.  `name` may be of one that has just gone.
        """

    def wall(self, monotonic: float) -> float:
        """The Unix time of a time of the loop's clock."""
