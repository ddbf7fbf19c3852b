"""The imports of spawnd, which are in the memory of each worker that it forks, too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import supervisor

# OpenSSL alone is most of a megabyte of each process's own
HEAVY = {"_hashlib", "hashlib", "secrets", "random", "ssl", "asyncio", "subprocess", "tempfile", "shutil", "pathlib"}
# what `inspect` imports, which `dataclasses` needs only where a dataclass has no docstring
OF_INSPECT = {"ast", "dis"}


def run(text: str) -> set[str]:
    """The words that a process of its own prints: what is imported stays."""
    folder = Path(supervisor.__file__).parents[1]
    done = subprocess.run((sys.executable, "-I", "-c", text), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_spawnd_imports_nothing_heavy() -> None:
    loaded = run(
        "import sys, supervisor.main, supervisor.boot, supervisor.state.state; from workers.runtime.start import"
        " load_shared; load_shared('accessory'); supervisor.main.parse_arguments([]); print(*sys.modules)"
    )
    assert {"supervisor.boot", "workers.accessory.main"} <= loaded
    assert not HEAVY & loaded
    assert not OF_INSPECT & loaded, "a dataclass has no docstring, or something else uses `inspect`"


@pytest.mark.parametrize(
    "use", ["inspect.signature(print)", "__import__('asyncio').iscoroutinefunction(print)", "vars(inspect)['__spec__']"]
)
def test_what_is_deferred_can_be_used(use: str) -> None:
    text = f"import supervisor, inspect; print(type(inspect).__name__); {use}; print(inspect.isclass(int))"
    assert run(text) == {"Deferred", "True"}


def test_spawnd_drops_the_reading_of_its_arguments() -> None:
    """Nothing keeps argparse, and no other part of spawnd needs it."""
    text = (
        "import supervisor.main as m, sys, weakref, argparse;"
        " left = weakref.ref(argparse.ArgumentParser); del argparse;"
        " found = m.parse_arguments([]); import supervisor.boot;"
        " print(left(), 'argparse' in sys.modules, found.strict)"
    )
    assert run(text) == {"None", "False"}


def test_an_exec_is_not_delayed_by_the_reading_of_its_arguments() -> None:
    text = (
        "import supervisor.main as m, sys; found = m.parse_arguments(['--trial', '--resume', '5']);"
        " print(found.resume, found.trial, m.parse_arguments(['--resume', '6']).trial, 'argparse' in sys.modules)"
    )
    assert run(text) == {"5", "True", "False"}


def test_nothing_is_collected_while_a_program_is_loaded() -> None:
    text = (
        "import gc, supervisor; seen = []; supervisor.run('x', lambda: seen.append(gc.isenabled()) or (lambda: 0));"
        " print(seen, gc.isenabled())"
    )
    assert run(text) == {"[False]", "True"}
