"""A small event loop: epoll, a heap of timers, and signals through a wake-up descriptor.

The loop owns only its epoll descriptor and its wake-up pipe. Watched descriptors belong to their owners,
which unwatch them before closing them. Callbacks take no argument but the epoll events, must not block, and
must tolerate readiness that is gone by the time they run. An exception in a callback is passed to `on_error`;
the loop goes on. A watch for which the kernel has no room begins later, so that no owner has to begin again.

A forked child that continues in Python has a copy of all objects here and must use none of them: it closes
the numbers (never through these objects) and makes its own loop.
"""

from __future__ import annotations

import errno
import heapq
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import count
from types import FrameType

Clock = Callable[[], float]
MAX_EVENTS = 64  # per wait: bounds the delay of timers, and of signals that are not urgent, in a busy moment
LONGEST_WAIT = 86400.0  # seconds; epoll_wait takes at most 24 days, and a timer may be due in a year
COMPACT_AT = 256  # cancelled timers that may stay in the heap before it is rebuilt
FAR = 1.0  # seconds of lateness from which on the loop was stopped rather than busy
# Seconds of the wait before a stop that count as part of it, besides the lateness: the start of the stop is
# unknown, and other frozen processes lacked that time as well.
UNCERTAIN = 60.0
NO_ROOM = (errno.ENOMEM, errno.ENOSPC)  # also the limit of a user, epoll(7): max_user_watches
RETRY = 0.1  # seconds until a watch is tried again


# Seconds since boot including suspensions of the machine, which `time.monotonic` leaves out.
clock_with_suspends: Clock = partial(time.clock_gettime, time.CLOCK_BOOTTIME)


class NoRoomError(Exception):
    """The kernel has no room for a watch, which is tried again; passed to `on_error` once until there is room."""


class Timer:
    """A call due at `when` (loop's clock); `cancel` is idempotent. `is_limit`: a stop of this process moves it."""

    __slots__ = ("_loop", "callback", "is_limit", "when")

    def __init__(self, loop: Loop, when: float, callback: Callable[[], None], is_limit: bool) -> None:
        self._loop = loop
        self.when = when
        self.callback: Callable[[], None] | None = callback
        self.is_limit = is_limit

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._loop.timer_cancelled()


class Loop:
    """The loop. `on_error(exception)` gets every exception that leaves a callback.

    `boot_clock` is a clock that keeps running while the machine is suspended; by default the counterpart of `clock`.
    """

    def __init__(
        self,
        on_error: Callable[[BaseException], None],
        clock: Clock = time.monotonic,
        boot_clock: Clock | None = None,
    ) -> None:
        self.clock = clock
        self._boot_clock = boot_clock or (clock_with_suspends if clock is time.monotonic else clock)
        self.woken = self._boot_clock()  # when the last wait ended
        self._suspended = self.woken - clock()
        self._on_grace: Callable[[float], None] | None = None
        self._on_error = on_error
        self._epoll = select.epoll()
        self._watches: dict[int, Callable[[int], None]] = {}
        self._late: dict[int, int] = {}  # events of the watches for which there was no room, by descriptor
        self._is_full = False  # and `on_error` knows
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = count()
        self._soon: deque[Callable[[], None]] = deque()
        self._signal_callbacks: dict[int, Callable[[], None]] = {}
        self._signals: deque[int] = deque()
        self._urgent: set[int] = set()
        self._is_signalled = False  # a signal has arrived since the last look at the pipe
        self._takes_signals = False
        self._running = False
        self._before_wait: Callable[[], None] | None = None
        self._wake_r, self._wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._wake_r, select.EPOLLIN, self._drain_wakeups)

    # descriptors

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback(events)` while `fd` is ready (level-triggered). The caller still owns `fd`.

        Raises OSError if `fd` can never be watched.
        """
        self._register(fd, events)
        self._watches[fd] = callback

    def modify(self, fd: int, events: int) -> None:
        if fd in self._late:
            self._late[fd] = events
        else:
            self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """End a watch, before `fd` is closed; its callback is not called again, even for events at hand."""
        if self._watches.pop(fd, None) is not None and self._late.pop(fd, None) is None:
            self._epoll.unregister(fd)

    def _register(self, fd: int, events: int) -> None:
        try:
            self._epoll.register(fd, events)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            if not self._late:
                self.call_later(RETRY, self._register_late)
            self._late[fd] = events
            if not self._is_full:
                self._is_full = True
                self._on_error(NoRoomError(f"cannot watch descriptor {fd}: {error.strerror}"))

    def _register_late(self) -> None:
        late, self._late = self._late, {}
        for fd, events in late.items():
            self._guard(partial(self._register, fd, events))
        self._is_full = bool(self._late)

    # time

    def call_at(self, when: float, callback: Callable[[], None], is_limit: bool = False) -> Timer:
        """Call back at a time of the loop's clock, after all input that arrived before it."""
        timer = Timer(self, when, callback, is_limit)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return self.call_at(self.clock() + delay, callback)

    def limit_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Do the same as `call_later`, for a time limit on others: it is extended when this process was stopped."""
        return self.call_at(self.clock() + delay, callback, is_limit=True)

    def on_grace(self, callback: Callable[[float], None]) -> None:
        """Call back with the seconds by which time limits move, before any is judged, for limits kept elsewhere."""
        self._on_grace = callback

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back after the events at hand; one such call per iteration, so that a long queue starves nothing."""
        self._soon.append(callback)

    def before_wait(self, callback: Callable[[], None]) -> None:
        """Call back at the end of every turn, to handle all changes of the turn at once."""
        self._before_wait = callback

    def timer_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > COMPACT_AT and self._cancelled > len(self._timers) // 2:
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    # signals

    def on_signal(self, signum: int, callback: Callable[[], None], is_urgent: bool = False) -> None:
        """Call back from the loop, once for each delivery of `signum` by the kernel, after the events at hand.

        If it `is_urgent`, call back before the next event, once for all deliveries until then.

        From the first call on, the loop owns the process's wake-up descriptor. It gets one byte per delivery,
        while Python calls a handler once for several deliveries.
        """
        self._signal_callbacks[signum] = callback
        if is_urgent:
            self._urgent.add(signum)
        if not self._takes_signals:
            self._takes_signals = True
            signal.set_wakeup_fd(self._wake_w, warn_on_full_buffer=False)
        signal.signal(signum, self._note_signal)

    def take_signals(self) -> list[int]:
        """Return the signals that arrived and whose callbacks have not been called; the caller handles them."""
        self._drain_wakeups(0)
        taken = list(self._signals)
        self._signals.clear()
        return taken

    def give_signals(self, signums: Iterable[int]) -> None:
        """Handle signals that arrived elsewhere, as if they arrived now."""
        self._signals.extend(signums)

    def _note_signal(self, _signum: int, _frame: FrameType | None) -> None:
        """Handle every signal; without a handler the kernel would take the default action."""
        self._is_signalled = True

    def _hear_signals(self) -> None:
        """Take the signals from the pipe, and call back for urgent ones at once."""
        self._is_signalled = False
        self._drain_wakeups(0)
        for signum in self._urgent.intersection(self._signals):
            self._signals = deque(other for other in self._signals if other != signum)
            self._guard(self._signal_callbacks[signum])

    def _drain_wakeups(self, _events: int) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._wake_r, 4096):
                self._signals.extend(data)

    # running

    def run(self) -> None:
        """Wait and call back until `stop`."""
        self._running = True
        self.woken = self._boot_clock()
        while self._running:
            self._once()

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        if self._takes_signals:
            signal.set_wakeup_fd(-1)
        self._epoll.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _once(self) -> None:
        ready = self._epoll.poll(self._wait_time(), MAX_EVENTS)
        woken = self._boot_clock()
        passed, self.woken = woken - self.woken, woken
        if passed > FAR:
            self._notice_stop(passed)
        if self._is_signalled:
            self._hear_signals()
            ready = self._epoll.poll(0, MAX_EVENTS)  # these may be closed by now, and their numbers others'
        self._dispatch(ready)
        now = self.clock() if self._timers else 0.0
        if self._timers and self._timers[0][0] <= now:
            self._dispatch_the_rest()
        if self._is_signalled:
            self._hear_signals()
        while self._signals:
            callback = self._signal_callbacks.get(self._signals.popleft())
            if callback is not None:
                self._guard(callback)
        if self._timers and self._timers[0][0] <= now:
            self._run_due(now)
        if self._soon:
            self._guard(self._soon.popleft())
        if self._before_wait is not None:
            self._guard(self._before_wait)

    def _dispatch(self, ready: list[tuple[int, int]]) -> None:
        if len(ready) == 1:  # the usual case; the list below would cost a tenth of an accessory's request
            fd, events = ready[0]
            watch = self._watches.get(fd)
            if watch is not None:
                try:
                    watch(events)
                except Exception as error:
                    self._on_error(error)
            return
        for fd, events, watch in [(fd, events, self._watches.get(fd)) for fd, events in ready]:
            # A callback may have closed it, and the number may belong to another watch already.
            if watch is not None and self._watches.get(fd) is watch:
                try:
                    watch(events)
                except Exception as error:
                    self._on_error(error)
                if self._is_signalled:
                    self._hear_signals()

    def _dispatch_the_rest(self) -> None:
        """Call back once for every descriptor that is ready by now, before due timers are judged.

        The wait may have ended without looking at any of them, as after a stop. The kernel cycles through all
        ready descriptors, so a wait that returns no new one has returned all.
        """
        heard: set[int] = set()
        while new := [event for event in self._epoll.poll(0, MAX_EVENTS) if event[0] not in heard]:
            heard.update(fd for fd, _events in new)
            self._dispatch(new)

    def _notice_stop(self, passed: float) -> None:
        """Extend time limits by the time in which this process, or the machine, did not run.

        `passed` are the seconds since the last wait ended, on the clock that includes suspensions; most turns
        need to read only that. Suspensions shorter than FAR count from the last longer wait on.
        """
        now = self.clock()
        suspended, self._suspended = self.woken - now - self._suspended, self.woken - now
        was_suspended, elapsed = suspended > FAR, passed - suspended
        due = self._next_due()
        late = 0.0 if due is None else max(0.0, min(elapsed, now - due))
        if late > FAR or was_suspended:
            self._grant(late + min(max(elapsed - late, FAR), UNCERTAIN))

    def _grant(self, seconds: float) -> None:
        for _when, _order, timer in self._timers:
            if timer.is_limit:
                timer.when += seconds
        self._timers = [(timer.when, order, timer) for _when, order, timer in self._timers]
        heapq.heapify(self._timers)
        if self._on_grace is not None:
            on_grace = self._on_grace
            self._guard(lambda: on_grace(seconds))

    def _wait_time(self) -> float:
        """Return the seconds until the next timer, -1 without one. `poll` rounds up to ms, so it never wakes early."""
        if self._soon or self._signals:
            return 0
        due = self._next_due()
        return -1 if due is None else min(max(0.0, due - self.clock()), LONGEST_WAIT)

    def _next_due(self) -> float | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
            self._cancelled -= 1
        return self._timers[0][0] if self._timers else None

    def _run_due(self, now: float) -> None:
        # timers set from here on are for the next turn, or they could keep this loop running
        newest = next(self._order)
        while self._timers and self._timers[0][0] <= now and self._timers[0][1] < newest:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is None:
                self._cancelled -= 1
            else:
                self._guard(callback)

    def _guard(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            self._on_error(error)
