"""The run-time folder: what is in it, and that one supervisor alone uses it."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from contextlib import suppress

from supervisor.errors import RuntimeFolderError

LOCK_TIMEOUT = 0.5  # seconds for the lock to be free
LOCK_POLL = 0.02  # seconds between two tries
FOLDERS = {"notify": 0o711, "control.d": 0o711, "functions": 0o700}
LONGEST_PATH = 107  # bytes of a Unix socket's path: sun_path less its NUL


class RuntimeFolder:
    """`path` holds `control`, `pid`, `state`, `notify/NAME`, `control.d/NAME` and `functions/FUNCTION:NAME`.

    Owns the lock, which is on the folder itself, so that nobody who clears up old files takes it away.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = -1

    @property
    def control(self) -> str:
        return f"{self.path}/control"

    @property
    def state(self) -> str:
        return f"{self.path}/state"

    def notify_path(self, name: str) -> str:
        return f"{self.path}/notify/{name}"

    def answer_path(self, name: str, function: str) -> str:
        return f"{self.path}/functions/{function}:{name}"

    def control_path(self, name: str) -> str:
        return f"{self.path}/control.d/{name}"

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock."""
        return self._lock

    def resume(self, lock: int) -> None:
        """Go on with the lock that this process took before it executed itself anew.  Raises RuntimeFolderError."""
        self._make_folders()
        os.set_inheritable(lock, False)
        self._lock = lock

    def claim(self) -> None:
        """Make the folder and take its lock.  Raises RuntimeFolderError."""
        if len(os.fsencode(self.control)) > LONGEST_PATH:
            raise RuntimeFolderError(f"cannot use run-time folder {self.path!r}: its sockets' paths would be too long")
        try:
            self._make(self.path, 0o755)
            self._make_folders()
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._take_lock()
            self._write_pid()
        except OSError as error:
            raise RuntimeFolderError(f"cannot use run-time folder {self.path!r}: {error.strerror}") from error

    def _make_folders(self) -> None:
        # services of any user look up their notification socket below it, nobody else lists it
        for folder, mode in FOLDERS.items():
            self._make(f"{self.path}/{folder}", mode)

    @staticmethod
    def _make(folder: str, mode: int) -> None:
        with suppress(FileExistsError):
            os.makedirs(folder, mode)
        status = os.stat(folder, follow_symlinks=False)
        if status.st_uid != os.geteuid():
            raise RuntimeFolderError(f"cannot use run-time folder {folder!r}: it belongs to uid {status.st_uid}")
        if status.st_mode & stat.S_IWOTH:  # such as /tmp, whose mode is not ours to change
            raise RuntimeFolderError(f"cannot use run-time folder {folder!r}: anybody can write to it")
        os.chmod(folder, mode)

    def _take_lock(self) -> None:
        """One that was killed may have just forked a child, which has the lock until it closes what is not its own."""
        deadline = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RuntimeFolderError(
                        f"cannot use run-time folder {self.path!r}: another supervisor does, pid {self._read_pid()}"
                    ) from None
            time.sleep(LOCK_POLL)

    def _write_pid(self) -> None:
        """For people and for the message of the next one; the lock is what counts, also on a full disk."""
        with suppress(OSError), open(f"{self.path}/pid", "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")

    def _read_pid(self) -> str:
        try:
            with open(f"{self.path}/pid") as file:
                return file.read(20).strip() or "unknown"
        except OSError:
            return "unknown"

    def release(self) -> None:
        """Give the lock back at an orderly end, and leave nothing in the folder that was made by `claim`."""
        if self._lock >= 0:
            with suppress(OSError):
                os.unlink(f"{self.path}/pid")
            for folder in FOLDERS:
                with suppress(OSError):  # sockets of services that live on are in there
                    os.rmdir(f"{self.path}/{folder}")
            os.close(self._lock)
            self._lock = -1
