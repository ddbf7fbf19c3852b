"""`spawnd`: the command line, and the start of its parts."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING

from supervisor import __version__, why_not_loaded
from supervisor.changes.evaluation import Done, Evaluation
from supervisor.deferred import forget
from supervisor.definitions.service import Definitions
from supervisor.errors import EXIT_CONFIG, EXIT_FAILED, DefinitionsError, SpawnError
from supervisor.linux.signal_mask import unblock_all
from supervisor.log.logger import LEVELS, log, notice, open_closed_stdio, open_log
from supervisor.loop.loop import Loop, NoRoomError
from supervisor.manager.runtime import RuntimeFolder
from supervisor.origin import RESUME, TRIAL, Origin, enter_utf8_mode, program
from supervisor.places import RULE, SYSCONFDIR, default_folder
from supervisor.printable import count, lose_output, quoted, write_out
from supervisor.process.children import REALTIME, Children, signal_name

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from supervisor.boot import Boot

PROGRAM = "spawnd"
TRIAL_TIME = 1.0  # seconds for which a trial runs
DEFINITIONS = f"{SYSCONFDIR}/spawnd/services.d"


def main() -> int:
    """Run spawnd until it is told to stop; return the exit status."""
    try:
        enter_utf8_mode()
    except OSError as error:
        sys.exit(f"spawnd: cannot execute {sys.executable!r} in UTF-8 mode: {error.strerror}")
    try:
        arguments = parse_arguments(sys.argv[1:])
    except SystemExit as end:  # argparse has printed an error or a help text
        return write_out(PROGRAM, int(end.code or 0))
    stderr_is_open = open_closed_stdio()
    open_log(arguments.log_level or "info", stderr_is_open)
    try:
        if arguments.resume is not None:
            return resume(arguments.resume, arguments.trial)
        command = program()  # before the folder changes, like `paths` and `folder`
        folder = _absolute(arguments.runtime_dir or default_folder())
        paths = [_absolute(path) for path in arguments.config or [DEFINITIONS]]
        os.chdir("/")
        os.umask(0o022)
        if arguments.check:
            return print_check(paths, arguments.strict)
        nofile_soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        origin = Origin(paths, arguments.log_level or "", nofile_soft, command, stderr_is_open)
        return supervise(origin, folder)
    except SpawnError as error:
        log.error("%s", error)
    except ImportError as error:  # of what is imported while the definitions are evaluated
        if not (cause := why_not_loaded(error)):
            raise
        log.error("%s", cause)
    except OSError as error:
        step = f"use {quoted(error.filename)}" if isinstance(error.filename, str) else "start"
        log.error("%s", why_not_loaded(error) or f"cannot {step}: {error.strerror or error}")
    return EXIT_FAILED


def parse_arguments(words: Sequence[str]) -> SimpleNamespace:
    """Return the values of the command line in a plain object: one of argparse would keep that module in memory.

    The words of an exec are read without it, because clients wait meanwhile.
    """
    if words[-2:-1] == [RESUME]:
        return SimpleNamespace(log_level=None, resume=int(words[-1]), trial=TRIAL in words)
    found = parser().parse_args(words)
    if found.strict and not found.check:
        parser().error("--strict goes with --check")
    result = SimpleNamespace(**vars(found), resume=None)
    del found
    forget("argparse", "gettext", "locale")
    return result


def parser() -> ArgumentParser:
    import argparse  # first, so that its memory is reused

    result = argparse.ArgumentParser(
        prog="spawnd",
        description="Run and supervise the services of the definition files, in the foreground.",
        formatter_class=partial(argparse.HelpFormatter, width=_width()),
    )
    configuration = f"a definition file, or a directory of *.lua files; may be repeated ({DEFINITIONS})"
    runtime = f"directory of the control socket, for this spawnd alone (here {default_folder()}; {RULE})"
    result.add_argument("--config", action="append", type=_path, metavar="PATH", help=configuration)
    result.add_argument("--runtime-dir", type=_path, metavar="DIR", help=runtime)
    result.add_argument("--check", action="store_true", help="check the definitions and exit")
    result.add_argument("--strict", action="store_true", help="with --check: treat notices as errors")
    result.add_argument("--log-level", choices=list(LEVELS), help="lowest level that is logged (info)")
    version = f"spawnd {__version__}"
    result.add_argument("--version", action="version", version=version, help="print the version and exit")
    return result


def _width() -> int:
    """Return the columns of the help text. argparse would import `shutil` for this, even without showing help."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns) - 2
    try:
        return (os.get_terminal_size(1).columns or 80) - 2
    except OSError:
        return 78


def _path(text: str) -> str:
    """Return the path. An empty path comes from an unset variable of a script; it does not mean the present folder."""
    if not text:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError("the path is empty")
    return text


def _absolute(path: str) -> str:
    """Return the absolute path. Raises SpawnError."""
    try:
        return os.path.abspath(path)
    except FileNotFoundError:  # of getcwd
        raise SpawnError(f"cannot use {quoted(path)}: the present directory was removed") from None


def print_check(paths: Sequence[str], strict: bool) -> int:
    """Check the definitions, print the result and return the exit status."""
    result = check(paths)
    try:
        return write_out(PROGRAM, print_result(result, strict))
    except OSError as error:
        return lose_output(PROGRAM, error)


def print_result(result: Definitions | DefinitionsError, strict: bool) -> int:
    """Print the problems, or the number of services. Raises OSError."""
    if isinstance(result, DefinitionsError):
        print(result, file=sys.stderr)
        return EXIT_CONFIG
    for line in result.notices:
        print(line, file=sys.stderr)
    if strict and result.notices:
        return EXIT_CONFIG
    notices = f", {count(len(result.notices), 'notice')}" if result.notices else ""
    print(f"OK: {count(len(result.services), 'service')}{notices}")
    return 0


def check(paths: Sequence[str]) -> Definitions | DefinitionsError:
    """Return the evaluated definitions, or their problems."""
    results: list[Definitions | DefinitionsError] = []
    loop = Loop(on_error=_log_exception)

    def take(result: Definitions | DefinitionsError) -> None:
        results.append(result)
        loop.stop()

    children = _make_children(loop)
    unblock_all()  # the parent may have blocked some, and exec keeps them blocked
    Evaluation(loop, children, paths, take, programs=True)
    loop.run()
    (result,) = results
    return result


def supervise(origin: Origin, folder: str) -> int:
    """Run as the supervisor."""
    loop = _make_loop()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runtime = RuntimeFolder(folder)
    runtime.claim()
    children = _make_children(loop)
    unblock_all()  # the parent may have blocked some, and exec keeps them blocked
    cancel = _evaluate(loop, children, origin.paths, lambda result: boot.start(result))
    boot_class = _import_boot()  # while the child evaluates, which takes most of the start
    boot = boot_class(loop, children, runtime, origin)
    loop.run()
    boot.close()
    cancel()
    runtime.release()
    return boot.status


def _evaluate(loop: Loop, children: Children, paths: Sequence[str], done: Done) -> Callable[[], None]:
    """Begin to evaluate the definitions, and return a function that ends it; a child that cannot begin is a problem.

    The services of an earlier spawnd keep their definitions then.
    """
    try:
        return Evaluation(loop, children, paths, done).cancel
    except OSError as error:
        problem = f"cannot evaluate the definitions: {error.strerror}"
        loop.call_soon(lambda: done(DefinitionsError([problem], passing=True)))
        return lambda: None


def _import_boot() -> type[Boot]:
    gc.disable()  # as in `supervisor.run`
    from supervisor.boot import Boot

    gc.enable()
    return Boot


def resume(fd: int, trial: bool) -> int:
    """Continue as the supervisor from before the exec, with the state in the memfd `fd`.

    With `trial` this is a child of that supervisor, with copies of its descriptors: restore everything, wait
    a second, do nothing else.
    """
    boot_class = _import_boot()
    from supervisor.state.state import read_state
    from supervisor.takeover.reexec import TRIED, close_but_files

    with open(fd, "rb") as file:
        state = read_state(file.read())
    saved = state.exec
    origin = Origin(**saved["origin"])
    if not trial:
        open_log(origin.level or "info", origin.stderr_is_open)
    loop = _make_loop()
    children = _make_children(loop)
    runtime = RuntimeFolder(saved["folder"])
    if not trial:
        runtime.inherit(saved["lock"])
    boot = boot_class(loop, children, runtime, origin)
    boot.rebuild(state)
    if trial:
        # descriptors that the supervisor closes meanwhile must not stay open here: ports, connections
        close_but_files(number for number in map(int, os.listdir("/proc/self/fd")) if number > 2)
        second = Loop(on_error=_log_exception)
        second.call_later(TRIAL_TIME, second.stop)
        second.run()
        os.write(1, TRIED)  # the exit may have to wait for the server of a file
        os._exit(0)  # without cleaning up: everything belongs to the supervisor
    boot.activate(state)
    del state, saved  # the loop runs for years
    unblock_all()
    loop.run()
    boot.close()
    runtime.release()
    return boot.status


def _make_loop() -> Loop:
    """Return a loop that handles every signal whose default action would end the process."""
    loop = Loop(on_error=_log_exception)
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, *REALTIME):
        loop.on_signal(signum, partial(notice, "signal %s: too early, ignored", signal_name(signum)))
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(signum, loop.stop)  # nothing runs yet that would have to stop in order
    return loop


def _make_children(loop: Loop) -> Children:
    children = Children(on_orphan=lambda pid, exit: log.debug("orphan %d: %s", pid, exit.describe()))
    loop.on_signal(signal.SIGCHLD, children.reap, is_urgent=True)
    return children


def _log_exception(error: BaseException) -> None:
    if isinstance(error, NoRoomError):
        log.warning("%s; trying again", error)
    else:
        log.error("unexpected error; going on", exc_info=error)
