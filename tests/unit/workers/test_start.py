"""Which workers can be started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import workers
import workers.log.main
from workers.runtime.start import has_resident, load


def test_a_worker_is_found_by_its_name() -> None:
    assert load("log") is workers.log.main.main


@pytest.mark.parametrize("name", ["", "Log", "log.main", "../log", "os", "1", "log\n", "runtime.start", "a b"])
def test_what_is_no_worker_is_not_loaded(name: str) -> None:
    with pytest.raises((ValueError, ModuleNotFoundError)):
        load(name)


def test_an_unknown_worker_fails_aloud() -> None:
    done = subprocess.run(
        (sys.executable, "-m", "spawn_supervisor.worker", "no_such"),
        cwd=Path(workers.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "worker no_such: cannot import 'workers.no_such': it is not installed" in done.stderr


def test_what_workers_share_is_imported_by_name() -> None:
    """In a process of its own: what is imported stays."""
    text = "import sys; from workers.runtime.start import load_resident; load_resident('netns'); print(*sys.modules)"
    folder = Path(workers.__file__).parents[1]
    done = subprocess.run((sys.executable, "-c", text), cwd=folder, capture_output=True, text=True)
    loaded = done.stdout.split()
    assert done.returncode == 0, done.stderr
    assert {"workers.netns.worker", "workers.netns.work"} <= set(loaded)
    assert not {"pyroute2", "asyncio", "workers.log.main"} & set(loaded)


@pytest.mark.parametrize("name", ["netns", "log", "no_such", "../netns", "", "Log"])
def test_who_is_one_of_many(name: str) -> None:
    assert has_resident(name) is (name == "netns")


@pytest.mark.parametrize("name", ["accessory", "log", "no_such", "../netns", "", "Log"])
def test_what_spawnd_imports_for_a_worker(name: str) -> None:
    """In a process of its own: what is imported stays."""
    text = f"import sys; from workers.runtime.start import load_shared; load_shared({name!r}); print(*sys.modules)"
    folder = Path(workers.__file__).parents[1]
    done = subprocess.run((sys.executable, "-c", text), cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("workers.accessory.main" in done.stdout.split()) is (name == "accessory")
