"""Waiting for the command, in `spawn-enter` itself and in the leader of the command's session.

`spawn-enter` passes on signals and copies its terminal meanwhile. The leader is the command's parent, and is
with it in its PID namespace: the kernel stops a process from the keyboard only if its parent is in the same
session. The leader stays root of the host, cannot be traced, and has nothing but the command's terminal.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from functools import partial

from supervisor.loop.loop import Loop
from workers.accessory.enter.terminal import Copy, Terminal

LOOK_AGAIN = 0.2  # seconds; nothing reports that a job, or the command, has come to the foreground
LAST_WORDS = 5.0  # seconds to wait for a terminal at the end and at a stop
MOST_LAST_WORDS = 65536  # bytes; several times the content of a pseudo-terminal
# Signals that a terminal sends to all processes in its foreground.
OF_TERMINALS = frozenset(
    {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH}
)
# Signals that a process causes itself: a handler of Python would return to the cause again and again.
FAULTS = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS})
# Signals of a terminal to processes in the background that read from it or set its modes.
ASKING = frozenset({signal.SIGTTIN, signal.SIGTTOU})
WAITED_FOR = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}


class Running:
    """Owns the terminal. `child` is the leader of the command's session or, without a terminal, the command itself.

    All signals are blocked until `wait`.
    """

    def __init__(self, child: int, terminal: Terminal | None) -> None:
        self._child = child
        self._terminal = terminal
        self._loop = Loop(on_error=self._failed)
        self._error: BaseException | None = None
        self._status: int | None = None
        self._looks = False
        self._runs = False
        self._typed_stop = False
        if terminal is not None:
            # a second descriptor, because reading and writing at the same time takes two watches
            self._master = os.dup(terminal.master)
            self._output = Copy(self._loop, terminal.master, terminal.output, self._lost)
            # ends in the background, when another process has set other modes, and when the terminal is gone
            self._input = Copy(self._loop, 0, self._master, self._follow, self._typed)
            self._loop.watch(terminal.begun, select.EPOLLIN, self._begin)

    def wait(self) -> int:
        """Wait for the end; return the exit status of the command, negative for the signal that ended it."""
        self._take_signals()
        try:
            if self._terminal is not None:
                self._output.start()
            self._look()
            if self._status is None:
                self._loop.run()
        finally:
            self._leave_terminal()
        if self._error is not None:
            raise self._error
        assert self._status is not None
        return self._status

    def _take_signals(self) -> None:
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)  # in the background, where an error says the same
        # SIGTTOU stops the whole job if it is meant to (`stty tostop`): the output of the command waits here
        for signum in WAITED_FOR - FAULTS - ASKING:
            self._loop.on_signal(signum, partial(self._pass_on, signum))
        self._loop.on_signal(signal.SIGCHLD, self._look)
        self._loop.on_signal(signal.SIGCONT, self._go_on)
        if self._terminal is not None:
            self._loop.on_signal(signal.SIGWINCH, self._terminal.follow_size)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITED_FOR - FAULTS)

    def _pass_on(self, signum: int) -> None:
        if self._status is not None:  # the child is reaped, and another process may have its pid
            return
        if self._terminal is not None:
            os.kill(self._child, signum)
        elif signum == signal.SIGTSTP:
            # In a session without a parent the kernel ignores SIGTSTP. STOP could hit others between vfork and exec.
            os.kill(self._child, signal.SIGSTOP)
        else:
            pass_on(self._child, signum)

    def _look(self) -> None:
        """Handle the end or a stop of the child; the leader stops when the command does."""
        while self._status is None:
            change = os.waitid(os.P_PID, self._child, os.WEXITED | os.WSTOPPED | os.WNOHANG)
            if change is None:
                return
            if change.si_code == os.CLD_STOPPED:
                self._stop()
            else:
                self._status = change.si_status if change.si_code == os.CLD_EXITED else -change.si_status
                self._loop.stop()

    def _stop(self) -> None:
        """Stop like the command, so that a shell gets its terminal back; the kernel ignores it without a shell.

        The stop key stops the whole job, although only the command received it. A command that stops itself
        stops only this process: the job may have other processes, which it does not affect.
        """
        stopped = 0 if self._typed_stop else os.getpid()  # 0: the process group
        self._typed_stop = False
        if self._terminal is not None:
            self._input.stop()
            self._copy_what_is_left()  # a program clears the screen before it stops
            self._terminal.restore()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(stopped, signal.SIGTSTP)
        self._loop.on_signal(signal.SIGTSTP, partial(self._pass_on, signal.SIGTSTP))
        # Earlier keys are obsolete, and the command is continued once: see `wait_child`.
        done = {signal.SIGTSTP, signal.SIGCONT}
        self._loop.give_signals([signum for signum in self._loop.take_signals() if signum not in done])
        self._go_on()

    def _go_on(self) -> None:
        if self._terminal is not None:
            self._terminal.follow_size()
            self._follow()
            if self._master >= 0:
                self._output.start()
        self._pass_on(signal.SIGCONT)

    def _begin(self, _events: int) -> None:
        """Pass on keys, and the signals that they cause, now that the command runs."""
        assert self._terminal is not None
        self._loop.unwatch(self._terminal.begun)
        self._runs = True
        self._follow()

    def _follow(self) -> None:
        """Take keys while this job has the foreground of its terminal, and the command that of its own."""
        assert self._terminal is not None
        if not self._runs or not self._terminal.has_input or self._master < 0:
            return
        if self._terminal.is_gone():
            if self._terminal.is_raw:
                self._lost()
            return  # a job in the background goes on
        if self._terminal.is_ours() and self._terminal.has_asked(self._child):
            self._terminal.follow_size()
            self._terminal.make_raw()
            self._input.start()
            return
        self._input.stop()
        if not self._looks:
            self._looks = True
            self._loop.call_later(LOOK_AGAIN, self._follow_again)

    def _follow_again(self) -> None:
        self._looks = False
        self._follow()

    def _typed(self, data: bytes) -> None:
        assert self._terminal is not None
        self._typed_stop |= self._terminal.has_stop_key(data)

    def _lost(self) -> None:
        """Handle the loss of the terminal; the command's own terminal hangs up."""
        self._input.stop()
        self._close_master()

    def _close_master(self) -> None:
        if self._master >= 0:
            assert self._terminal is not None
            os.close(self._terminal.master)
            os.close(self._master)
            self._master = -1

    def _leave_terminal(self) -> None:
        if self._terminal is None:
            return
        self._input.stop()
        self._copy_what_is_left()
        self._terminal.restore()
        self._close_master()

    def _copy_what_is_left(self) -> None:
        if self._master >= 0:
            self._output.finish(LAST_WORDS, MOST_LAST_WORDS)

    def _failed(self, error: BaseException) -> None:
        self._error = error
        self._loop.stop()


def hold_signals() -> set[signal.Signals]:
    """Block all signals that can be blocked, before the fork; return the previous mask."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it were ignored, the ends of children would not be reported
    mask: set[signal.Signals] = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED_FOR)  # type: ignore[assignment]
    return mask


def wait_child(pid: int, terminal: int) -> int:
    """Wait for the end of the command; return its exit status, negative for the signal that ended it.

    Other signals are passed on. When the command stops, this process stops too. The exception is a command
    that asks for the foreground of its `terminal`, a descriptor, while this process has it: the command gets
    the foreground. The SIGCONT that continues this process is passed on like other signals, once: a second
    one would undo the command's next stop.
    """
    with suppress(PermissionError):  # the command has been executed, so it did that itself
        os.setpgid(pid, pid)  # otherwise a signal could come before its group exists
    while True:
        signum = signal.sigwaitinfo(WAITED_FOR).si_signo
        if signum != signal.SIGCHLD:
            pass_on(pid, signum)
            continue
        while (change := os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOHANG)) is not None:
            if change.si_code == os.CLD_EXITED:
                return change.si_status
            if change.si_code != os.CLD_STOPPED:
                return -change.si_status
            if change.si_status in ASKING and _gave_foreground(pid, terminal):
                pass_on(pid, signal.SIGCONT)
            else:
                os.kill(os.getpid(), signal.SIGSTOP)


def _gave_foreground(pid: int, terminal: int) -> bool:
    with suppress(OSError):  # the terminal has hung up, or the command has left its group
        if os.tcgetpgrp(terminal) == os.getpgrp():
            os.tcsetpgrp(terminal, pid)
            return True
    return False


def pass_on(pid: int, signum: int) -> None:
    """Send a signal to a child that has not been reaped, or to its process group if a terminal sends it to groups."""
    if signum in OF_TERMINALS:
        with suppress(ProcessLookupError):  # it does not lead its group yet, or has left it
            os.killpg(pid, signum)
            return
    os.kill(pid, signum)


def end_like(status: int) -> int:
    """Return the exit status. If a signal ended the command, end this process with the same signal."""
    if status < 0:
        signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-status})
        os.kill(os.getpid(), -status)
        return 128 - status  # the signal does not end a process
    return status
