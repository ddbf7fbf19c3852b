"""A daemon for each test that wants one, in a folder that services of any user can enter."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.accessory import AccessoryDaemon, accessory_daemon
from tests.daemon import Daemon, call, wait_until
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
        _make_out(path)
        yield path


def _make_out(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out").chmod(0o777)


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


class LastingDaemon(Daemon):
    """A daemon for many tests.  Between two of them it has its settings alone; `log` is that of the present one."""

    def __init__(self, folder: Path, settings: str) -> None:
        super().__init__(folder, settings)
        self._settings = settings
        self._since = 0

    def log(self) -> str:
        return super().log()[self._since :]

    def begin(self, definitions: str) -> None:
        """Start the services of a test, and do not wait for them, as a start of spawnd does."""
        self._since += len(self.log())
        self.definitions.write_text(self._settings + definitions)
        self._apply(no_wait=True)

    def end(self) -> None:
        """Stop them, so that nothing of them is left."""
        self.definitions.write_text(self._settings)
        self._apply(no_wait=False)
        wait_until(lambda: not self.services(), "the end of all services of a test")

    def _apply(self, no_wait: bool) -> None:
        reply = call(self.socket, "Apply", no_wait=no_wait)
        assert reply.get("parameters", {}).get("problems") == [], reply


class Lasting:
    """Starts a daemon when a test first asks for it, and anew after a test that it has not gone on from."""

    def __init__(self, folder: Path, settings: str = "") -> None:
        self.folder = folder
        self._settings = settings
        self._stack = ExitStack()
        self._daemon: LastingDaemon | None = None

    @contextmanager
    def running(self, definitions: str) -> Iterator[Daemon]:
        """Yield the daemon with these definitions."""
        daemon = self._daemon or self._start()
        try:
            daemon.begin(definitions)
            yield daemon
            tell(daemon)
            if daemon.ended():
                self.close()
            else:
                daemon.end()
        except BaseException as error:
            daemon.kill()
            error.add_note(f"spawnd's log:\n{daemon.log()[-SHOWN:]}")
            self.close()
            raise

    def _start(self) -> LastingDaemon:
        self._daemon = LastingDaemon(self.folder, self._settings)
        self._stack.enter_context(self._daemon)
        return self._daemon

    def sweep(self) -> None:
        """Remove the files of a test."""
        kept = ("run", "log", "services.lua") if self._daemon is not None else ()
        for path in self.folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        _make_out(self.folder)

    def close(self) -> None:
        self._daemon = None
        self._stack.close()


@pytest.fixture(scope="module")
def lasting() -> Iterator[Lasting]:
    """The daemon of all tests with the mark `lasting`; `lasting(False)` is for one among them with its own."""
    with new_folder() as folder:
        daemon = Lasting(folder)
        yield daemon
        daemon.close()


def _is_lasting(request: pytest.FixtureRequest) -> bool:
    mark = request.node.get_closest_marker("lasting")
    return mark is not None and mark.args != (False,)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Iterator[Path]:
    if _is_lasting(request):
        lasting: Lasting = request.getfixturevalue("lasting")
        yield lasting.folder
        lasting.sweep()
    else:
        with new_folder() as path:
            yield path


@pytest.fixture
def spawnd(request: pytest.FixtureRequest, folder: Path) -> Iterator[Start]:
    """`spawnd(definitions, *options)` starts a daemon and waits for its control socket; it is ended with the test."""
    with ExitStack() as stack:

        def start(definitions: str, *options: str) -> Daemon:
            text = definitions.replace("@", str(folder))
            if _is_lasting(request):
                assert not options, "those of a lasting daemon are not the test's"
                return stack.enter_context(request.getfixturevalue("lasting").running(text))  # type: ignore[no-any-return]
            daemon = stack.enter_context(Daemon(folder, text, *options))
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
