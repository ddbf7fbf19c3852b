"""A folder of what takes long to build, each under the digest of what it is built from.

It lies outside of the checkout, so that it survives one: `$XDG_CACHE_HOME/spawn-supervisor/vm`, or that in `~/.cache`.
An entry is a folder that appears complete, in one rename; one process builds it while others that want the same wait.
Packages change without their names doing so: what is older than MAX_AGE_S is built anew.  Of each kind the KEPT
youngest stay.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_AGE_S = 30 * 24 * 3600.0
# Two checkouts that take turns do not build for each other.
KEPT = 2
SCRATCH = "scratch-"
MEMORY = Path("/dev/shm/spawn-supervisor-vm")
MEMORY_BYTES = 10 << 30  # available, so that trees, machines and their disks do not take the half of it
FORBIDS = os.ST_NODEV | os.ST_NOEXEC | os.ST_NOSUID
# A scratch folder that was made a moment ago may be about to be locked.
GRACE_S = 60.0


def default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "spawn-supervisor" / "vm"


def default_cache() -> Cache:
    return Cache(default_folder(), memory_folder())


def memory_folder(path: Path = MEMORY) -> Path | None:
    """A folder of root's in memory that may have devices and programs, or None where there is no room for one.

    A package manager waits for a disk after each file, and the removal of a tree waits for it as well.
    """
    available = re.search(r"^MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    if not available or int(available[1]) << 10 < MEMORY_BYTES:
        return None
    try:
        system = os.statvfs(path.parent)
        if system.f_bavail * system.f_frsize < MEMORY_BYTES >> 1 or system.f_flag & FORBIDS:
            return None
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError:
        return None
    # anybody may have made it
    return path if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() else None


def digest(inputs: Iterable[str]) -> str:
    """16 hexadecimal digits that no other sequence of texts has."""
    whole = hashlib.sha256()
    for text in inputs:
        data = text.encode()
        whole.update(b"%d:" % len(data))
        whole.update(data)
    return whole.hexdigest()[:16]


def tree_digest(root: Path, names: Iterable[str]) -> str:
    """Of the files below `root` that have these names or are in folders that do: paths, modes and contents."""
    return digest(part for path in files_below(root, names) for part in _describe(root, path))


def _describe(root: Path, path: Path) -> Iterator[str]:
    yield str(path.relative_to(root))
    yield oct(path.stat().st_mode)
    yield hashlib.sha256(path.read_bytes()).hexdigest()


def files_below(root: Path, names: Iterable[str]) -> list[Path]:
    """Regular files, in the order of their paths; what Python leaves behind is not among them."""
    found = []
    for name in names:
        top = root / name
        inside = top.rglob("*") if top.is_dir() else [top]
        found += [path for path in inside if path.is_file() and "__pycache__" not in path.parts]
    return sorted(found)


class Cache:
    """The returned entries stay for as long as it lives, whatever others do."""

    def __init__(self, folder: Path, memory: Path | None = None) -> None:
        """`memory`: where scratch folders are, in place of `folder`."""
        self.folder = folder
        self._scratches = memory or folder
        self._held: list[int] = []

    def close(self) -> None:
        while self._held:
            os.close(self._held.pop())

    def entry(self, name: str, inputs: Iterable[str], build: Callable[[Path], None]) -> Path:
        """The folder that `build` fills, which is called with an empty one where there is none yet.

        What `build` raises goes through; the next one begins anew.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_orphans(self.folder)
        path = self.folder / f"{name}-{digest(inputs)}"
        with self._lock(name):
            self._prune(name, path)
            if not path.exists():
                self._build(path, build)
            self._held.append(_lock_folder(path, fcntl.LOCK_SH))
        return path

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A new folder where there is room for trees and disks.  Removed in the end, by whoever comes next where this
        process does not get to it: what is locked has an owner that lives."""
        self._remove_orphans(self._scratches)
        with self._scratch(self._scratches) as folder:
            yield folder

    @contextmanager
    def _scratch(self, where: Path) -> Iterator[Path]:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where, prefix=SCRATCH) as name:
            lock = _lock_folder(Path(name), fcntl.LOCK_EX)
            try:
                yield Path(name)
            finally:
                os.close(lock)

    def _build(self, path: Path, build: Callable[[Path], None]) -> None:
        with self._scratch(self.folder) as temporary:
            folder = temporary / path.name
            folder.mkdir()
            build(folder)
            # what a crash of the host leaves behind must be whole, too
            for each in (*folder.rglob("*"), folder):
                _sync(each)
            folder.rename(path)
            os.utime(path)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Held by its open file, and so never by somebody who is gone.  The file stays, as removing it is a race."""
        with (self.folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _prune(self, name: str, wanted: Path) -> None:
        """Remove what is too old, and more of a kind than are kept; what somebody holds stays."""
        entries = sorted(self.folder.glob(f"{name}-*"), key=_born, reverse=True)
        for number, path in enumerate(entries):
            if time.time() - _born(path) > MAX_AGE_S or (number >= KEPT and path != wanted):
                self._remove(path)

    def _remove_orphans(self, where: Path) -> None:
        for path in where.glob(f"{SCRATCH}*"):
            if time.time() - _born(path) > GRACE_S:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """At once, for all who look for it."""
        try:
            lock = _lock_folder(path, fcntl.LOCK_EX)
        except (FileNotFoundError, BlockingIOError):
            return  # somebody else does it, or holds it
        try:
            gone = path.rename(path.parent / f"{SCRATCH}{os.getpid()}-{path.name.removeprefix(SCRATCH)}")
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(lock)


def _born(path: Path) -> float:
    """When it was made, and now for what has just gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _lock_folder(path: Path, how: int) -> int:
    """The descriptor that holds the lock.  Raises BlockingIOError where somebody else has it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd
