"""The log worker: reads the output of services with `log()`, keeps the latest part, and passes on every line.

The descriptor `feed` announces the streams: `+NAME` with the read end of a pipe and a ring, `-NAME` at the
end of a stream. A flooding service is read less often and has to wait. Lines of other services do not wait,
and no lines are lost. As a service must not block forever, a log without a reader drops lines instead. On
SIGTERM, the worker reads the remaining output and ends, even if the signal arrives during its start: signals
are blocked until it can handle them. It needs only its descriptors, and so runs as a user of its own.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
from contextlib import suppress

import setproctitle

from supervisor.linux.capabilities import drop_all, has_effective, set_no_new_privs
from supervisor.linux.pipe_call import PATIENCE_MS, PipeCall, reserve
from supervisor.linux.signal_mask import unblock_all
from supervisor.log.logger import log, notice, open_log, worker_logs_to_stderr
from supervisor.log.output import FEED_SIZE
from supervisor.loop.loop import Loop
from workers.log.outlet import PATIENCE, Outlet, Turns
from workers.log.stream import Stream
from workers.runtime.start import passed_descriptors

PAUSE = 0.1  # seconds until a stream is read again if no child could be started
REST = 0.002  # seconds between reads of a stream, so that a service that writes line by line needs fewer children
CHUNK = 1 << 16  # bytes per read: the default capacity of a pipe

USER = "spawnd-log"  # if the host has this user
ID = 65525  # otherwise: Debian and systemd leave the ids from 65520 to 65533 unused
PASSWD = "/etc/passwd"  # noqa: S105  # a path; read as a file, because a name service may take any time

CAP_SYS_PTRACE = 19  # <linux/capability.h>


class Worker:
    """The streams of all services. Owns the feed and the descriptors of all streams."""

    def __init__(self, loop: Loop, feed: socket.socket, outlet: Outlet) -> None:
        self._loop = loop
        self._feed = feed
        self._streams: dict[str, Stream] = {}
        self._turns = Turns(loop, outlet, self._passed)
        self._unread: set[Stream] = set()  # flooding streams
        loop.watch(feed.fileno(), select.EPOLLIN, lambda _events: self._read_feed())

    def _read_feed(self) -> None:
        while True:
            try:
                message, fds, _flags, _address = socket.recv_fds(self._feed, FEED_SIZE, 2)
            except BlockingIOError:
                return
            if not message:
                # spawnd is gone; the services continue to write, so this worker continues to read
                self._loop.unwatch(self._feed.fileno())
                return
            self._take(message[:1], message[1:].decode(), fds)

    def _take(self, operation: bytes, name: str, fds: list[int]) -> None:
        if operation == b"-":
            if name in self._streams:
                self._remove(self._streams.pop(name))
        elif len(fds) == 2:
            self._add(Stream(name, *fds))
        else:
            for fd in fds:
                os.close(fd)
            log.error("cannot take the output of %s: no descriptors left; it will block", name)

    def _add(self, stream: Stream) -> None:
        old = self._streams.pop(stream.name, None)
        if old is not None:
            self._remove(old)
        self._streams[stream.name] = stream
        self._watch(stream)

    def _watch(self, stream: Stream) -> None:
        self._loop.watch(stream.fd, select.EPOLLIN, lambda _events: self._read(stream))

    def _read(self, stream: Stream) -> None:
        try:
            taken = stream.read(CHUNK)
        except OSError:  # no child can be started
            self._loop.unwatch(stream.fd)
            self._loop.call_later(PAUSE, lambda: self._read_again(stream))
            return
        self._go_on(stream, taken)

    def _go_on(self, stream: Stream, taken: int | None) -> None:
        """Pass on what was read, and stop watching a stream that has ended or floods."""
        if stream.call is not None:
            self._loop.unwatch(stream.fd)
            self._take_later(stream, stream.call)
        elif taken is None:
            self._loop.unwatch(stream.fd)
        elif stream.floods:
            self._loop.unwatch(stream.fd)
            self._unread.add(stream)
        elif taken:
            self._loop.unwatch(stream.fd)
            self._loop.call_later(REST, lambda: self._read_again(stream))
        self._turns.add(stream)

    def _take_later(self, stream: Stream, call: PipeCall) -> None:
        call.when_ended(self._loop, lambda: self._take_late(stream, call))

    def _take_late(self, stream: Stream, call: PipeCall) -> None:
        if stream.call is not call:
            return  # the result was taken before the loop reported the child's end
        if stream.ended:
            self._finish(stream)
        else:
            taken = stream.take_late()
            self._watch(stream)
            self._go_on(stream, taken)

    def _read_again(self, stream: Stream) -> None:
        if not stream.ended:
            self._watch(stream)

    def _passed(self, stream: Stream) -> None:
        """Continue to read a service that has flooded, and close a stream that has ended."""
        if stream.ended:
            if stream.is_over:
                self._close(stream)
        elif stream in self._unread and not stream.floods:
            self._unread.remove(stream)
            self._watch(stream)

    def _remove(self, stream: Stream) -> None:
        self._loop.unwatch(stream.fd)
        self._unread.discard(stream)
        self._finish(stream, PATIENCE_MS)  # usually before another stream of that name begins

    def _close(self, stream: Stream) -> None:
        try:
            stream.close()
        except OSError:  # no child can be started
            self._loop.call_later(PAUSE, lambda: self._close(stream))

    def _finish(self, stream: Stream, patience: int = 0) -> None:
        try:
            stream.drain(CHUNK, patience)
        except OSError:  # no child can be started
            self._loop.call_later(PAUSE, lambda: self._finish(stream))
        if stream.call is not None:
            self._take_later(stream, stream.call)
        self._turns.add(stream)

    def end(self) -> None:
        self._read_feed()
        for stream in self._streams.values():
            with suppress(OSError):  # no child can be started; the next worker reads the rest
                stream.drain(CHUNK, PATIENCE_MS)
            stream.end()
            self._turns.add(stream)
        self._turns.finish(PATIENCE)
        self._loop.stop()


def main() -> int:
    setproctitle.setproctitle("spawnd: log")
    handler = open_log("info", worker_logs_to_stderr())
    # two descriptors per stream; the soft limit is meant for services, the hard limit is that of the host
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reserve()
    fds = passed_descriptors()
    loop = Loop(on_error=lambda error: log.error("log worker: unexpected error; going on", exc_info=error))
    leave_root()  # after the log was opened: pipes and terminals belong to other users
    feed = socket.socket(fileno=fds["feed"][0])
    feed.setblocking(False)
    worker = Worker(loop, feed, Outlet(handler))
    loop.on_signal(signal.SIGTERM, worker.end)
    loop.on_signal(signal.SIGINT, worker.end)
    unblock_all()
    loop.run()
    return os.EX_OK


def leave_root() -> None:
    """Permanently give up root and all capabilities. A worker of an ordinary user keeps its user.

    After a loss, the next spawnd gets the output of all services back from this process. Without CAP_SYS_PTRACE,
    spawnd cannot inspect a process of another user; the worker then stays root, without capabilities.
    """
    if os.geteuid() != 0:
        return
    if has_effective(CAP_SYS_PTRACE):
        uid, gid = find_ids()
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            notice("cannot run the log worker as uid %d: %s; it stays root, without capabilities", uid, error.strerror)
    drop_all()
    set_no_new_privs()


def find_ids(passwd: str = PASSWD) -> tuple[int, int]:
    """Return uid and gid of USER, or ID for both."""
    try:
        with open(passwd, encoding="utf-8", errors="replace") as file:
            for line in file:
                fields = line.split(":")
                if fields[0] == USER:
                    return int(fields[2]), int(fields[3])
    except (OSError, ValueError, IndexError) as error:
        notice("cannot look up user %s in %s: %s", USER, passwd, error)
    return ID, ID
