"""The run-time folder: its contents, the lock that reserves it for one supervisor, and the watch that restores it."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import time
from binascii import b2a_base64
from collections.abc import Callable, Container, Set
from contextlib import suppress

from supervisor.errors import RuntimeFolderError
from supervisor.linux.file_status import device_and_mount
from supervisor.linux.inotify import (
    IN_CLOEXEC,
    IN_DELETE,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_NONBLOCK,
    IN_ONLYDIR,
    inotify_add_watch,
    inotify_init1,
    inotify_rm_watch,
    parse_events,
)
from supervisor.linux.place import Place
from supervisor.log.logger import log, notice
from supervisor.loop.loop import Loop, Timer
from supervisor.notify.receiver import LONGEST_PATH
from supervisor.notify.untrusted import LocalFileSystems
from supervisor.places import CONTROL, OWNER_SUFFIX, owner_socket
from supervisor.printable import quoted

LOCK_PATIENCE = 10.0  # seconds to wait for the lock while no other supervisor is seen
LOCK_POLL = 0.02  # seconds between two tries
REMOVAL_PAUSE = 0.2  # seconds from a removal until it is reported
SOCKET_FOLDERS = ("notify", "control.d")
FOLDERS = {"notify": 0o711, "control.d": 0o711, "functions": 0o700}
FILES = ("pid", "state", "state~")
KINDS = {
    **dict.fromkeys(FOLDERS, stat.S_IFDIR),
    **dict.fromkeys(FILES, stat.S_IFREG),
    **dict.fromkeys((CONTROL, f"{CONTROL}{OWNER_SUFFIX}", "contro~"), stat.S_IFSOCK),
}

MASK = IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR
BUFFER = 1 << 16


class RuntimeFolder:
    """The folder at `path`, with the sockets `control` and `control.owner`, `pid`, `state`, and three folders.

    The folders hold `notify/NAME.TOKEN/s`, `control.d/NAME`, `functions/FUNCTION:NAME` and `functions/denied`.
    Owns the lock, which is on the folder itself, so that no clean-up of old files removes it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.made_notify_folder: Callable[[str], None] = lambda path: None  # called with each
        self._lock = -1

    @property
    def control(self) -> str:
        return f"{self.path}/{CONTROL}"

    @property
    def owner_control(self) -> str:
        return owner_socket(self.control)

    @property
    def state(self) -> str:
        return f"{self.path}/state"

    def old_notify_path(self, name: str) -> str:
        """Return the path of a notification socket in earlier versions, for a service whose record names none."""
        return f"{self.path}/notify/{name}"

    def new_notify_path(self, name: str) -> str:
        """Return a new path for a notification socket, which other services of the same user cannot guess.

        The token is in the name of a folder, as the last part of a socket's path is public.
        """
        # module `secrets` would load OpenSSL
        token = b2a_base64(os.urandom(12), newline=False).decode().replace("/", "_")
        room = LONGEST_PATH - len(os.fsencode(f"{self.path}/notify/.{token}/s"))
        return f"{self.path}/notify/{name[: max(0, room)]}.{token}/s"

    def make_notify_folder(self, path: str) -> None:
        """Make the folder of a notification socket, which any user who knows the path may enter. Raises OSError."""
        folder = os.path.dirname(path)
        with suppress(FileExistsError):
            os.mkdir(folder, 0o711)
            os.chmod(folder, 0o711)  # noqa: S103  # the umask may have taken some of it
        self.made_notify_folder(folder)

    def drop_notify_folder(self, path: str) -> None:
        """Remove the folder of a notification socket that is gone."""
        folder = os.path.dirname(path)
        if folder != f"{self.path}/notify":
            with suppress(OSError):
                os.rmdir(folder)

    def sweep_notify_folders(self, used: Container[str]) -> None:
        """Remove notification sockets and their folders, except those at the paths `used`."""
        for entry in list(os.scandir(f"{self.path}/notify")):
            path = f"{entry.path}/s" if entry.is_dir(follow_symlinks=False) else entry.path
            if path not in used:
                with suppress(OSError):
                    os.unlink(path)
                self.drop_notify_folder(path)

    def answer_path(self, name: str, function: str) -> str:
        return f"{self.path}/functions/{function}:{name}"

    @property
    def denied(self) -> str:
        """The table of the addresses that have connected to a trap; in there, as root alone may read it."""
        return f"{self.path}/functions/denied"

    def sweep_answers(self, used: Container[str]) -> None:
        """Remove answers that were noted, except those of services `used`."""
        for entry in list(os.scandir(f"{self.path}/functions")):
            function, colon, name = entry.name.partition(":")
            if colon and function != "held" and name not in used:
                with suppress(OSError):
                    os.unlink(entry.path)

    def note_path(self, name: str) -> str:
        """Return the path of the note that names processes held while files of a service are reopened."""
        return f"{self.path}/functions/held:{name}"

    def notes(self) -> list[str]:
        """Return the paths of all such notes."""
        return [entry.path for entry in os.scandir(f"{self.path}/functions") if entry.name.startswith("held:")]

    def control_path(self, name: str) -> str:
        return f"{self.path}/control.d/{name}"

    @property
    def socket_folders(self) -> tuple[str, ...]:
        """The folders with sockets of services at paths that do not change; an access to them never waits."""
        return self.path, f"{self.path}/control.d"

    @property
    def lock(self) -> int:
        """The descriptor that holds the lock."""
        return self._lock

    def inherit(self, lock: int) -> None:
        """Take over the lock that this process took before it executed itself anew. Raises RuntimeFolderError."""
        self._make_folders()
        os.set_inheritable(lock, False)
        self._lock = lock

    def claim(self, patience: float = LOCK_PATIENCE) -> None:
        """Make the folder and take its lock, waiting at most `patience` seconds for what a lost spawnd has left.

        A folder of another owner stays unchanged. Raises RuntimeFolderError.
        """
        if len(os.fsencode(self.owner_control)) > LONGEST_PATH:
            raise self._unusable("its sockets' paths would be too long")
        try:
            self._refuse_served()
            with suppress(FileExistsError):
                os.makedirs(self.path, 0o755)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._refuse_others(os.fstat(self._lock))
            self._take_lock(patience)
            self._refuse_contents()
            if _narrow(self._lock, 0o755):
                self._refuse_contents()  # members of its group may have put a link there in between
            self._make_folders()
            self._write_pid()
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        if os.geteuid() == 0 and not os.fstat(self._lock).st_mode & stat.S_IXOTH:
            notice("%s is closed to other users: their services cannot reach their notification sockets", self.path)

    def restore(self) -> bool:
        """Make removed parts of the folder again, and return whether anything was missing.

        The parent folder is not made again. Raises RuntimeFolderError, and then keeps the lock on the old
        folder.
        """
        try:
            present = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            present = None
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        if present is not None and os.path.samestat(present, os.fstat(self._lock)):
            if all(os.path.isdir(f"{self.path}/{folder}") for folder in FOLDERS):
                return False
            self._make_folders()
            return True
        if not os.path.isdir(os.path.dirname(self.path)):
            raise self._unusable("the directory that it was in is gone")
        old = self._lock
        try:
            self.claim(0.0)
        except RuntimeFolderError:
            if self._lock != old:
                os.close(self._lock)
            self._lock = old
            raise
        os.close(old)
        return True

    def _unusable(self, cause: str) -> RuntimeFolderError:
        return RuntimeFolderError(f"cannot use run-time directory {quoted(self.path)}: {cause}")

    def _refuse_served(self) -> None:
        """Refuse a folder whose file system may never answer, unless the root of all files has the same one."""
        file_systems, root = LocalFileSystems(), os.stat("/").st_dev

        def enter(fd: int, name: str) -> None:
            if file_systems.have(fd, name) or (not name and os.makedev(*device_and_mount(fd)[0]) == root):
                return
            raise self._unusable("its file system has a server that may never answer; --runtime-dir takes a local one")

        try:
            with suppress(FileNotFoundError), Place(follows_all=True, enters=enter) as place:
                place.enter(f"{self.path}/.")
        finally:
            file_systems.close()

    def _refuse_others(self, status: os.stat_result) -> None:
        if status.st_uid != os.geteuid():
            raise self._unusable(f"it belongs to uid {status.st_uid}")
        if status.st_mode & stat.S_IWOTH:
            raise self._unusable("all users can write to it")

    def _refuse_contents(self) -> None:
        """Refuse foreign contents.

        `pid` and `state` alone prove nothing: the folder for notifications has to be there.
        """
        kinds = {entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) for entry in os.scandir(self._lock)}
        foreign = [name for name, kind in kinds.items() if kind != KINDS.get(name)]
        if "notify" not in kinds:
            foreign += [name for name in kinds if name in FILES]
        if foreign:
            name = quoted(min(foreign))
            raise self._unusable(f"it holds {name}, which is not spawnd's; --runtime-dir takes a directory of its own")

    def _make_folders(self) -> None:
        """Make the folders.

        Services of any user look up their notification socket below them; only the owner lists them.
        """
        for folder, mode in FOLDERS.items():
            with suppress(FileExistsError):
                os.mkdir(f"{self.path}/{folder}", mode)
            fd = os.open(f"{self.path}/{folder}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                self._refuse_others(os.fstat(fd))
                _narrow(fd, mode)
            finally:
                os.close(fd)

    def _take_lock(self, patience: float) -> None:
        """Take the lock, with patience: a child that a killed spawnd has just forked may hold it for a moment.

        On a busy machine that moment is long. A supervisor that lives is recognized at once.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                pid = self._read_pid()
                if self._is_open_in(pid):
                    raise self._unusable(f"another supervisor does, pid {pid}") from None
                if time.monotonic() >= deadline:
                    text = "its lock is held by a process that is not the supervisor of its file `pid`"
                    raise self._unusable(f"{text}; `fuser -v DIR` shows it") from None
            time.sleep(LOCK_POLL)

    def _is_open_in(self, pid: str) -> bool:
        """Whether a process has the folder open; also if that cannot be told of a process that exists."""
        folder = os.readlink(f"/proc/self/fd/{self._lock}")  # to look at other files might wait for their server
        try:
            for number in os.listdir(f"/proc/{int(pid)}/fd"):
                with suppress(FileNotFoundError):  # closed meanwhile
                    if os.readlink(f"/proc/{pid}/fd/{number}") == folder:
                        return True
        except PermissionError:
            return True
        except (OSError, ValueError):
            pass
        return False

    def _write_pid(self) -> None:
        """Write the pid for people and for the error message of another supervisor; only the lock counts."""
        with suppress(OSError), open(f"{self.path}/pid", "w", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")

    def _read_pid(self) -> str:
        try:
            with open(f"{self.path}/pid") as file:
                return file.read(20).strip() or "unknown"
        except OSError:
            return "unknown"

    def release(self) -> None:
        """Release the lock at an orderly end, and remove from the folder what `claim` has made.

        Folders stay beside a state from which the next spawnd is to go on: it takes no other folder for its own.
        """
        if self._lock >= 0:
            with suppress(OSError):
                if os.path.samestat(os.stat(self.path), os.fstat(self._lock)):  # else it is another supervisor's
                    os.unlink(f"{self.path}/pid")
            if not os.path.exists(self.state):
                with suppress(OSError):
                    self.sweep_answers(())
            for folder in FOLDERS if not os.path.exists(self.state) else ():
                with suppress(OSError):  # sockets of services that live on are in there
                    os.rmdir(f"{self.path}/{folder}")
            os.close(self._lock)
            self._lock = -1


def _narrow(fd: int, mode: int) -> bool:
    """Remove permissions beyond `mode`, and return whether there were any.

    An existing folder never becomes open to more users than before.
    """
    before = stat.S_IMODE(os.fstat(fd).st_mode)
    is_wider = bool(before & ~mode)
    if is_wider:
        os.fchmod(fd, before & mode)
    return is_wider


class FolderWatch:
    """Watch that calls `remade` after a folder was removed and made again. Owns its descriptor.

    `removed` gets the names that are gone from the folders of sockets, whoever has removed them: some time later,
    so that nothing is made in a folder that is just being removed. The folder of a removed notification socket
    counts as gone. If the kernel loses events, `remade` is called instead, as anything may be gone.
    """

    def __init__(
        self, loop: Loop, runtime: RuntimeFolder, remade: Callable[[], None], removed: Callable[[Set[str]], None]
    ) -> None:
        self._loop = loop
        self._runtime = runtime
        self._remade = remade
        self._removed = removed
        self._gone: set[str] = set()
        self._has_lost_events = False
        self._is_blind = False  # there are no more watches, and the log says so
        self._telling: Timer | None = None
        self._own_watches: list[int] = []
        self._socket_watches: set[int] = set()
        self._notify_folders: dict[int, str] = {}  # names of folders with a notification socket, by their watch
        self._names = {*FOLDERS, os.path.basename(runtime.path)}
        self._fd = -1
        try:
            self._fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
            self._watch()
        except OSError as error:
            log.warning("cannot watch %s: %s; if removed, it is not made again", runtime.path, error.strerror)
            self.close()
        else:
            runtime.made_notify_folder = self._watch_notify_folder
            loop.watch(self._fd, select.EPOLLIN, self._read)
            loop.call_soon(self._look)

    def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
        if self._fd >= 0:
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def end(self) -> None:
        """Watch no longer. A later `close` need not wait for the kernel, which takes some 10 ms to free a watch."""
        for watch in (*self._own_watches, *self._socket_watches, *self._notify_folders):
            with suppress(OSError):  # its folder is gone
                inotify_rm_watch(self._fd, watch)

    def _watch(self) -> None:
        paths = [os.path.dirname(self._runtime.path), self._runtime.path]
        self._own_watches = [inotify_add_watch(self._fd, path, MASK) for path in paths]
        paths = [f"{self._runtime.path}/{folder}" for folder in SOCKET_FOLDERS]
        self._socket_watches = {inotify_add_watch(self._fd, path, MASK) for path in paths}
        self._notify_folders.clear()
        for entry in list(os.scandir(f"{self._runtime.path}/notify")):
            if entry.is_dir(follow_symlinks=False):
                self._watch_notify_folder(entry.path)

    def _watch_notify_folder(self, path: str) -> None:
        try:
            watch = inotify_add_watch(self._fd, path, MASK)
        except OSError as error:
            if not self._is_blind:
                log.warning("cannot watch %s: %s; a removed socket is bound again at a start", path, error.strerror)
            self._is_blind = True
        else:
            self._is_blind = False
            self._notify_folders[watch] = os.path.basename(path)

    def _read(self, _events: int) -> None:
        try:
            events = parse_events(os.read(self._fd, BUFFER))
        except BlockingIOError:
            return
        for watch, _mask, name in events:
            if watch < 0:  # the queue has overflowed
                self._has_lost_events = True
            elif watch in self._socket_watches:
                self._gone.add(name)
            elif watch in self._notify_folders:
                self._gone.add(self._notify_folders.pop(watch))  # watched again with the next socket
        if (self._gone or self._has_lost_events) and self._telling is None:
            self._telling = self._loop.call_later(REMOVAL_PAUSE, self._tell_removed)
        if any(name in self._names for _watch, _mask, name in events):
            self._look()

    def _tell_removed(self) -> None:
        gone, self._gone = self._gone, set()
        has_lost_events, self._has_lost_events = self._has_lost_events, False
        self._telling = None
        if has_lost_events:
            self._look(anything=True)
        else:
            self._removed(gone)

    def _look(self, anything: bool = False) -> None:
        """Restore the folder; if a part of it was missing, or `anything` may be, have its contents restored."""
        if self._fd < 0:
            return
        is_restored = False
        try:
            is_restored = self._runtime.restore()
            if not is_restored and not anything:
                return
            self._watch()
        except RuntimeFolderError as error:
            log.error("%s: it was removed, and clients cannot reach spawnd; restart spawnd", error)
            return
        except OSError as error:
            log.error("cannot watch %s: %s", self._runtime.path, error.strerror)
        if is_restored:
            notice("run-time directory %s was removed, or a part of it: made again", self._runtime.path)
        self._remade()
