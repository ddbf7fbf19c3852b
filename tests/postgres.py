"""A PostgreSQL server of the tests' own: a private cluster in a temporary folder, on a Unix socket alone."""

from __future__ import annotations

import os
import pwd
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

DEADLINE = 60.0  # seconds; a start, and a recovery after a kill, take less than one
_SETTINGS = """
listen_addresses = ''
unix_socket_directories = '{folder}'
max_connections = 20
shared_buffers = 16MB
dynamic_shared_memory_type = mmap
fsync = {fsync}
"""


def server_programs() -> Path | None:
    """The folder of the newest server that Debian's packages have put here, if any."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


class Database:
    """The server that `conninfo` reaches."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo

    def execute(self, sql: str, *params: object) -> list[tuple[object, ...]]:
        """The rows of a statement, on a connection of its own."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            cursor = connection.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else []


class Postgres(Database):
    """Owns the cluster and the server process, which is a child of this one.

    It runs as nobody where this is root, which the server refuses to run as.
    """

    def __init__(self, programs: Path, folder: Path, *, fsync: bool) -> None:
        super().__init__(f"host={folder} user=tester dbname=postgres")
        self._programs = programs
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "--pgdata", "data", "--username", "tester", "--auth", "trust", "--no-sync", "-E", "UTF8")
        with open(folder / "data" / "postgresql.conf", "a", encoding="utf-8") as file:
            file.write(_SETTINGS.format(folder=folder, fsync="on" if fsync else "off"))

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        assert self._process is None
        command = [str(self._programs / "postgres"), "-D", "data"]
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **_as_nobody())
        self._wait_ready()

    def ensure_running(self) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = None
            self.start()

    def kill(self) -> None:
        """End the server as a crash of the host would: no client is told."""
        if self._process is None:
            return
        # its processes outlive it for a moment, and a new server does not start beside them: it forks no more, then all
        pid = self._process.pid
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        pidfds = [os.pidfd_open(int(child)) for child in children]
        self._end(signal.SIGKILL)
        for pidfd in pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            assert select.select([pidfd], [], [], DEADLINE)[0]
            os.close(pidfd)

    def stop(self) -> None:
        """End the server as for an update: all clients are disconnected first."""
        self._end(signal.SIGINT)

    def of_database(self, name: str) -> Database:
        return Database(f"host={self.folder} user=tester dbname={name}")

    def _end(self, signum: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signum)
            process.wait(DEADLINE)

    def _wait_ready(self) -> None:
        end = time.monotonic() + DEADLINE
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                assert time.monotonic() < end, (self.folder / "log").read_text()
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.01)
            else:
                return

    def _run(self, program: str, *args: str) -> None:
        command = [str(self._programs / program), *args]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL, **_as_nobody())


@contextmanager
def postgres(*, fsync: bool = False) -> Iterator[Postgres]:
    """A server that runs; everything of it is gone in the end.  `fsync`: it is to survive a crash of the host, too."""
    programs = server_programs()
    assert programs is not None, "no PostgreSQL server: make packages"
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # a short path, for its socket
    server = None
    try:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        server = Postgres(programs, folder, fsync=fsync)
        server.start()
        yield server
    finally:
        if server is not None:
            server.kill()
        shutil.rmtree(folder)


def _as_nobody() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
