"""Starting a moved log file anew, under a process that keeps writing to the same open file.

No process can exchange the open file of another. So the file itself is moved back to its path and emptied,
and a copy of its content takes its place under the name that it was moved to. The processes of the service
are held while the last part is copied, so that no line is lost: by the freezer of their cgroup, or else by
STOP to their group.

A note in a file that outlives this process names the held processes beforehand. If this process is killed,
another one can release them (`let_go`).
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from supervisor.linux.place import NewFile, Place
from supervisor.process.failure import failed, step
from supervisor.process.pids import continue_group, read_process, stop_group

CHUNK = 1 << 20
STEP = "reopen"

Hold = Callable[[], AbstractContextManager[object]]  # holds the writers as long as it is entered

PATIENCE = 1.0  # seconds until all are held
POLL = 0.001
LONGEST_NOTE = 8192  # bytes


def begin_anew(fd: int, path: str, hold: Hold) -> None:
    """Move the open file of `fd`, which is open for writing, back to `path`, and empty it. Raises StepError."""
    own = os.fstat(fd)
    with step(STEP, path), Place(owners=(own.st_uid,)) as place:
        place.enter(path)
        moved_to = _present_name(fd, own, place, path)
        if moved_to == place.name:
            return  # it is back already
        other = _file_at_path(place, path)
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with NewFile(place.folder) as copy:
                _take_over(copy.fd, own)
                _copy(reader, copy.fd)
                with hold():
                    _copy(reader, copy.fd)
                    last = os.fstat(fd)
                    os.utime(copy.fd, ns=(last.st_atime_ns, last.st_mtime_ns))
                    os.rename(moved_to, place.name, src_dir_fd=place.folder, dst_dir_fd=place.folder)
                    copy.give_name(moved_to)
                    os.ftruncate(fd, 0)
                    os.lseek(fd, 0, os.SEEK_SET)  # the process shares the offset
        finally:
            os.close(reader)
        if other is not None:
            _take_over(fd, other)  # the maker of a new file has chosen its owner and mode


def _present_name(fd: int, own: os.stat_result, place: Place, path: str) -> str:
    """Return the name of the open file in the folder of its path."""
    name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
    try:
        found = os.stat(name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        found = None
    if found is None or (found.st_dev, found.st_ino) != (own.st_dev, own.st_ino):
        cause = "the file that the process writes to was deleted" if own.st_nlink == 0 else "it was moved elsewhere"
        raise failed(STEP, path, errno.ESTALE, cause)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise failed(STEP, path, errno.EMLINK, "the file that the process writes to has several names")
    return name


def _file_at_path(place: Place, path: str) -> os.stat_result | None:
    """Return the status of a new file at the path, which has to be empty; None without one."""
    try:
        found = os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    place.check_owner(found, place.name)
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        raise failed(STEP, path, errno.EEXIST, "there is another file, which is not empty")
    return found


def _take_over(fd: int, status: os.stat_result) -> None:
    """Give a file the owner and the mode of another."""
    with suppress(PermissionError):  # a supervisor that is not root has only one user
        os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, stat.S_IMODE(status.st_mode))


def _copy(reader: int, writer: int) -> None:
    """Copy the rest."""
    while data := os.read(reader, CHUNK):
        view = memoryview(data)
        while view:
            view = view[os.write(writer, view) :]


@contextmanager
def frozen(note: int, cgroup: str) -> Iterator[None]:
    """Freeze every process in the cgroup, unless it is frozen already. Raises StepError."""
    with step("freeze", cgroup):
        is_frozen = _read(f"{cgroup}/cgroup.freeze").strip() == "1"
    if is_frozen:
        yield
        return
    try:
        with step("freeze", cgroup):
            _write_down(note, {"cgroup": cgroup})
            _freeze(cgroup, True)
            _wait(lambda: "frozen 1" in _read(f"{cgroup}/cgroup.events"), "freeze", cgroup)
        yield
    finally:
        let_go(note)


@contextmanager
def stopped(note: int, leader: int, started: int) -> Iterator[None]:
    """Stop the process group of a service, unless its leader is stopped already. Raises StepError."""
    process = read_process(leader)
    if process is None or process.state in "Tt":
        yield
        return
    try:
        with step("stop", str(leader)):
            _write_down(note, {"leader": leader, "started": started})
            _wait(lambda: stop_group(leader, started), "stop", str(leader))
        yield
    finally:
        let_go(note)


def let_go(note: int) -> bool:
    """Release the processes named in the file `note`, and empty it; return whether there were any."""
    try:
        held = json.loads(os.pread(note, LONGEST_NOTE, 0))
    except ValueError:
        return False  # empty, or the writer was killed before it held any process
    with suppress(OSError):  # the processes are gone
        if "cgroup" in held:
            _freeze(held["cgroup"], False)
        else:
            continue_group(held["leader"], held["started"])
    os.ftruncate(note, 0)
    return True


def _write_down(note: int, held: dict[str, str | int]) -> None:
    os.pwrite(note, json.dumps(held).encode(), 0)


def _freeze(cgroup: str, is_on: bool) -> None:
    """Freeze or thaw every process in the cgroup. Raises OSError."""
    fd = os.open(f"{cgroup}/cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"1" if is_on else b"0")
    finally:
        os.close(fd)


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _wait(condition: Callable[[], bool], what: str, where: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise failed(what, where, errno.ETIMEDOUT)
        time.sleep(POLL)
