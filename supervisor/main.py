"""`spawnd`: the command line, and the parts put together."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from collections.abc import Sequence
from functools import partial

from supervisor import __version__
from supervisor.definitions.service import Definitions
from supervisor.errors import EXIT_CONFIG, EXIT_FAILED, DefinitionsError, SpawnError
from supervisor.linux.descriptors import LAST_DESCRIPTOR, close_range
from supervisor.linux.signal_mask import unblock_all
from supervisor.log.logger import LEVELS, log, notice, open_closed_stdio, open_log
from supervisor.loop.loop import Loop
from supervisor.manager.evaluation import Evaluation
from supervisor.manager.runtime import RuntimeFolder
from supervisor.origin import Origin, program
from supervisor.process.children import REALTIME, Children, signal_name
from supervisor.runtime_folder import default_folder

TRIAL_TIME = 1.0  # seconds that a trial goes on for
DEFINITIONS = "/etc/spawnd/services.d"


def main() -> int:
    """Run spawnd until it is told to stop; the exit status."""
    arguments = parser().parse_args()
    stderr_is_open = open_closed_stdio()
    open_log(arguments.log_level or "info", stderr_is_open)
    command = program()  # before the folder changes, as `paths`
    paths = [os.path.abspath(path) for path in arguments.config or [DEFINITIONS]]
    os.chdir("/")
    os.umask(0o022)
    try:
        if arguments.check:
            return check(paths)
        if arguments.resume is not None:
            return resume(arguments.resume, arguments.trial)
        nofile_soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        origin = Origin(paths, arguments.log_level or "", nofile_soft, command, stderr_is_open)
        return run(origin, arguments.runtime_dir or default_folder())
    except SpawnError as error:
        log.error("%s", error)
    except OSError as error:
        log.error("cannot start: %s", error)
    return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(
        prog="spawnd", description="Runs services as their Lua definitions say, in the foreground."
    )
    result.add_argument(
        "--config", action="append", metavar="PATH", help=f"a definition file or a folder of *.lua ({DEFINITIONS})"
    )
    result.add_argument("--runtime-dir", metavar="DIR", help=f"where the control socket is ({default_folder()})")
    result.add_argument("--check", action="store_true", help="check the definitions and exit")
    result.add_argument("--log-level", choices=list(LEVELS), help="what to log, from this level on (info)")
    result.add_argument("--resume", type=int, help=argparse.SUPPRESS)
    result.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)
    result.add_argument("--version", action="version", version=f"spawnd {__version__}")
    return result


def check(paths: Sequence[str]) -> int:
    """Evaluate the definitions and print what is wrong, or how many services there are."""
    results: list[Definitions | DefinitionsError] = []
    loop = Loop(on_error=_log_exception)

    def take(result: Definitions | DefinitionsError) -> None:
        results.append(result)
        loop.stop()

    children = _make_children(loop)
    unblock_all()  # whoever started this may have blocked some, and exec keeps them blocked
    Evaluation(loop, children, paths, take)
    loop.run()
    # only now: what cannot be written would be an error of a callback, after which a loop goes on
    (result,) = results
    if isinstance(result, DefinitionsError):
        print(result, file=sys.stderr)
        return EXIT_CONFIG
    for line in result.notices:
        print(line, file=sys.stderr)
    print(f"OK: {len(result.services)} services", flush=True)
    return 0


def run(origin: Origin, folder: str) -> int:
    """Be the supervisor."""
    loop = _make_loop()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    runtime = RuntimeFolder(folder)
    runtime.claim()
    children = _make_children(loop)
    unblock_all()  # whoever started this may have blocked some, and exec keeps them blocked
    evaluation = Evaluation(loop, children, origin.paths, lambda result: boot.start(result))
    # the rest is imported while the child evaluates: that is what a start takes longest for
    from supervisor.boot import Boot

    boot = Boot(loop, children, runtime, origin)
    loop.run()
    boot.close()
    evaluation.cancel()
    runtime.release()
    return boot.status


def resume(fd: int, trial: bool) -> int:
    """Be the supervisor that this process was before it executed itself anew, by the state in the memfd `fd`.

    With `trial` be that in a child of it, with copies of all it has: make everything, let a
    second go by, do nothing.
    """
    from supervisor.boot import Boot
    from supervisor.state.state import read_state

    with open(fd, "rb") as file:
        state = read_state(file.read())
    kept = state.exec
    origin = Origin(**kept["origin"])
    if not trial:
        open_log(origin.level or "info", origin.stderr_is_open)
    loop = _make_loop()
    children = _make_children(loop)
    runtime = RuntimeFolder(kept["folder"])
    if not trial:
        runtime.resume(kept["lock"])
    boot = Boot(loop, children, runtime, origin)
    boot.resume(state)
    if trial:
        # what the other closes meanwhile is to be closed: ports, connections
        close_range(3, LAST_DESCRIPTOR)
        second = Loop(on_error=_log_exception)
        second.call_later(TRIAL_TIME, second.stop)
        second.run()
        os._exit(0)  # nothing of it is to be closed in order: it is all the other's
    boot.go_on(state)
    unblock_all()
    loop.run()
    boot.close()
    runtime.release()
    return boot.status


def _make_loop() -> Loop:
    """A loop that takes every signal whose default action ends the process: none may come too early."""
    loop = Loop(on_error=_log_exception)
    for signum in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, *REALTIME):
        loop.on_signal(signum, partial(notice, "signal %s: too early, ignored", signal_name(signum)))
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.on_signal(signum, loop.stop)  # nothing runs yet, so there is nothing to stop in order
    return loop


def _make_children(loop: Loop) -> Children:
    children = Children(on_orphan=lambda pid, exit: log.debug("orphan %d: %s", pid, exit.describe()))
    loop.on_signal(signal.SIGCHLD, children.reap)
    return children


def _log_exception(error: BaseException) -> None:
    log.error("unexpected error; going on", exc_info=error)
