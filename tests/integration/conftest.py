"""A daemon for each test that wants one, in a folder that services of any user can enter."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.daemon import Daemon
from tests.integration.versions import installed

Start = Callable[..., Daemon]
D = TypeVar("D", bound=Daemon)
SHOWN = 8000  # characters of a log


@contextmanager
def new_folder() -> Iterator[Path]:
    """A new folder that everybody may enter, with `out` in it, where everybody may write."""
    with tempfile.TemporaryDirectory(prefix="spawnd-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "out").mkdir()
        (path / "out").chmod(0o777)
        yield path


def tell(daemon: Daemon, since: int = 0) -> None:
    """Print what the daemon has logged since so many characters: pytest shows it where the test has failed."""
    print(f"spawnd's log:\n{daemon.log()[since:][-SHOWN:]}")


@contextmanager
def shared(definitions: str, *options: str) -> Iterator[Daemon]:
    """A daemon for a fixture of a module, for tests that leave it as they have found it."""
    with new_folder() as folder, Daemon(folder, definitions.replace("@", str(folder)), *options) as daemon:
        yield daemon


@contextmanager
def telling(daemon: D) -> Iterator[D]:
    """A shared daemon for a single test, whose log of that time is shown where it has failed."""
    since = len(daemon.log())
    yield daemon
    tell(daemon, since)


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as path:
        yield path


@pytest.fixture
def spawnd(folder: Path) -> Iterator[Start]:
    """`spawnd(definitions, *options)` starts a daemon and waits for its control socket; it is ended with the test."""
    with ExitStack() as stack:

        def start(definitions: str, *options: str) -> Daemon:
            daemon = stack.enter_context(Daemon(folder, definitions.replace("@", str(folder)), *options))
            stack.callback(tell, daemon)
            return daemon

        yield start


@pytest.fixture
def version(folder: Path) -> Iterator[Start]:
    """`version(definitions, …)` starts a daemon of a version that can be exchanged in its folder."""
    with ExitStack() as stack:
        yield lambda definitions, *options, **keys: stack.enter_context(
            installed(folder, definitions, *options, **keys)
        )


@pytest.fixture(scope="module")
def accessory_of_all() -> Iterator[AccessoryDaemon]:
    with new_folder() as folder, accessory_daemon(folder) as daemon:
        yield daemon


@pytest.fixture
def accessory(accessory_of_all: AccessoryDaemon) -> Iterator[AccessoryDaemon]:
    """The accessory of all tests of a module that only ask it for namespaces; names of another test may be there."""
    accessory_of_all.wait_state("accessory", "running")
    with telling(accessory_of_all) as daemon:
        yield daemon


@pytest.fixture
def program(folder: Path) -> Callable[[str, str], str]:
    """`program(name, text)` makes an executable file in the folder and returns its path."""

    def make(name: str, text: str) -> str:
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return make
