"""Network namespaces, links and mounts of a test: counted, and removed by the prefix of their names."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

FOLDER = Path("/run/netns")


def run(*command: str, check: bool = True) -> str:
    """Return the output of a command."""
    return subprocess.run(command, check=check, capture_output=True, text=True).stdout


def names(prefix: str) -> list[str]:
    """The network namespaces whose names begin so."""
    return sorted(name for name in _listed(FOLDER) if name.startswith(prefix))


def _listed(folder: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return os.listdir(folder)
    return []


def links(prefix: str) -> list[str]:
    return sorted(name for name in os.listdir("/sys/class/net") if name.startswith(prefix))


def count_links(prefix: str) -> int:
    return len(links(prefix))


def count_mounts(prefix: str) -> int:
    """The mounts on names of network namespaces that begin so: others make theirs at the same time."""
    return Path("/proc/self/mountinfo").read_text().count(f"{FOLDER}/{prefix}")


def fields(path: str) -> dict[str, int]:
    """The numbers of a file of `NAME: NUMBER …` lines."""
    lines = (line.partition(":") for line in Path(path).read_text().splitlines())
    return {name: int(value.split()[0]) for name, _colon, value in lines if value.split()}


@contextmanager
def swept(prefix: str) -> Iterator[None]:
    """Remove in the end what is left of namespaces and links whose names begin so, and of their files."""
    try:
        yield
    finally:
        for link in links(prefix):
            subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)
        for name in names(prefix):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        for name in _listed(Path("/etc/netns")):
            if name.startswith(prefix):
                shutil.rmtree(f"/etc/netns/{name}")
