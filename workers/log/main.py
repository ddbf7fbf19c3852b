"""The log worker: reads what services with `log()` write, keeps the latest, passes every line on.

On the descriptor `feed` it is told of the streams: `+NAME` with the reading end of a pipe
and a ring, `-NAME` when a stream is gone.  A service must never block on its log, so every
pipe is read as long as there is something in it, whatever becomes of the lines: a log that
nobody reads loses lines, not services.  On TERM it reads what is there and ends.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket

import setproctitle

from supervisor.log.logger import log, open_log
from supervisor.log.output import FEED_SIZE
from supervisor.loop.loop import Loop
from workers.log.stream import Stream
from workers.runtime.descriptors import passed_descriptors

CHUNK = 1 << 16  # what a pipe holds by default


class Worker:
    """Owns the feed and the descriptors of all streams."""

    def __init__(self, loop: Loop, feed: socket.socket) -> None:
        self._loop = loop
        self._feed = feed
        self._streams: dict[str, Stream] = {}
        loop.watch(feed.fileno(), select.EPOLLIN, lambda _events: self._read_feed())

    def _read_feed(self) -> None:
        while True:
            try:
                message, fds, _flags, _address = socket.recv_fds(self._feed, FEED_SIZE, 2)
            except BlockingIOError:
                return
            if not message:
                # spawnd is gone; the services write on, so we read on
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
        self._loop.watch(stream.fd, select.EPOLLIN, lambda _events: self._read(stream))

    def _read(self, stream: Stream) -> None:
        if stream.read(CHUNK) is None:
            self._loop.unwatch(stream.fd)

    def _remove(self, stream: Stream) -> None:
        self._loop.unwatch(stream.fd)
        stream.drain(CHUNK)
        stream.close()

    def end(self) -> None:
        self._read_feed()
        for stream in self._streams.values():
            stream.drain(CHUNK)
        self._loop.stop()


def main() -> int:
    setproctitle.setproctitle("spawnd: log")
    open_log("info", stderr_is_open=True)
    # two for each stream; the soft limit is a service's, the hard one is what the host allows
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fds = passed_descriptors()
    loop = Loop(on_error=lambda error: log.error("log worker: unexpected error; going on", exc_info=error))
    feed = socket.socket(fileno=fds["feed"][0])
    feed.setblocking(False)
    worker = Worker(loop, feed)
    loop.on_signal(signal.SIGTERM, worker.end)
    loop.on_signal(signal.SIGINT, worker.end)
    loop.run()
    return os.EX_OK
