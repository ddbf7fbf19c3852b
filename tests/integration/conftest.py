"""A daemon for each test that wants one, in a folder that services of any user can enter."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon import Daemon

Start = Callable[..., Daemon]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder that everybody may enter, with `out` in it, where everybody may write."""
    with tempfile.TemporaryDirectory(prefix="spawnd-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "out").mkdir()
        (path / "out").chmod(0o777)
        yield path


@pytest.fixture
def spawnd(folder: Path) -> Iterator[Start]:
    """`spawnd(definitions, *options)` starts a daemon and waits for its control socket; it is ended with the test."""
    with ExitStack() as stack:

        def start(definitions: str, *options: str) -> Daemon:
            return stack.enter_context(Daemon(folder, definitions.replace("@", str(folder)), *options))

        yield start


@pytest.fixture
def program(folder: Path) -> Callable[[str, str], str]:
    """`program(name, text)` makes an executable file in the folder and returns its path."""

    def make(name: str, text: str) -> str:
        path = folder / name
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return make
