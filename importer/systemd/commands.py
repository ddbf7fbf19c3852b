"""The commands of a service: its program, its check, its signals, and the steps of its functions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from importer.result import SourceError
from importer.systemd import daemons
from importer.systemd.conversion import Conversion, Shape
from importer.systemd.specifiers import SpecifierError
from importer.systemd.steps import Step, found_program
from importer.systemd.unit_file import Entry
from importer.systemd.units import Unit
from importer.systemd.values import ValueNotUnderstood, duration, is_off, signal_name
from importer.systemd.words import Command, WordError, commands
from importer.values import Value

MAIN_PID = re.compile(r"\$MAINPID|\$\{MAINPID\}")
CHECK_OPTIONS = frozenset(
    "-t -T -tq -qt --test --check --check-config --checkconfig --configtest --validate --config-test -configtest "
    "configtest checkconfig checkconf validate check".split()
)
CHECK_PROGRAM = re.compile(r"(^|[-_])check|checkconf|configtest|^test$|^\[$")
NO_FUNCTIONS = "functions do not go with a process for each connection"


@dataclass(frozen=True, slots=True)
class Plan:
    """Shape of a service, decided before its directives are converted.

    `starts` are the commands of ExecStart with their entries, `forks` is whether the program goes into the background.
    """

    type: str
    remains: bool
    starts: tuple[tuple[Entry, Command], ...]
    shape: Shape
    forks: bool
    expands: bool
    command: Command | None = field(default=None)

    @property
    def is_oneshot(self) -> bool:
        return self.type == "oneshot"


def make_plan(unit: Unit, *, sessions: bool) -> Plan:
    """Return the plan of a service. Raises SourceError where its commands cannot be read or there are none."""
    starts = tuple((entry, command) for entry in unit.all("Service", "ExecStart") for command in read(unit, entry))
    stops = unit.all("Service", "ExecStop")
    kind = unit.value("Service", "Type") or ("simple" if starts or not stops else "oneshot")
    remains = not is_off(unit.value("Service", "RemainAfterExit"))
    if not starts and not (kind == "oneshot" and stops):
        raise SourceError(unit.path, 1, "cannot convert: there is no ExecStart=")
    is_steps = kind == "oneshot" and (remains or len(starts) != 1 or starts[0][1].may_fail)
    shape = Shape.SESSIONS if sessions else Shape.STEPS if is_steps else Shape.PROGRAM
    command = starts[0][1] if starts else None
    stays = daemons.in_foreground(command) if kind == "forking" and command else None
    checks = [command for entry in unit.all("Service", "ExecStartPre") for command in read(unit, entry)]
    expands = any(each.expands for each in [*([command] if command else []), *filter(is_check, checks)])
    return Plan(kind, remains, starts, shape, kind == "forking" and stays is None, expands, stays or command)


def read(unit: Unit, entry: Entry) -> list[Command]:
    """Return the commands of a directive, with the values of specifiers. Raises SourceError."""
    try:
        return [
            replace(
                command,
                program=unit.expand(command.program),
                argv0=unit.expand(command.argv0),
                arguments=tuple(map(unit.expand, command.arguments)),
            )
            for command in commands(entry.value)
        ]
    except (WordError, SpecifierError) as error:
        raise SourceError(entry.file, entry.line, f"cannot convert {entry.key}=: {error}") from None


def is_check(command: Command) -> bool:
    """Whether a command only looks whether a configuration is right."""
    is_plain = not command.may_fail and not command.as_root
    return is_plain and bool(CHECK_PROGRAM.search(command.name) or CHECK_OPTIONS.intersection(command.arguments))


def _arguments(plan: Plan, command: Command) -> list[Value]:
    """Return arguments as they are written here, where `$` means something only with `expand_env`."""
    if ":" in command.prefixes:
        return [word.replace("$", "$$") if plan.expands else word for word in command.arguments]
    return [word if plan.expands else word.replace("$$", "$") for word in command.arguments]


def exec_start(conversion: Conversion, plan: Plan, entries: Sequence[Entry]) -> None:
    """Convert ExecStart: the program, or the steps of a module without one."""
    if plan.shape is Shape.STEPS:
        for entry in entries:
            for command in read(conversion.unit, entry):
                conversion.before_start.append(Step(command))
        conversion.carried(entries, "in the function start")
        return
    assert plan.command is not None
    first = plan.starts[0][0]
    conversion.left_out([entry for entry in entries if entry is not first], "only Type=oneshot has several commands")
    program, guess = found_program(plan.command.program)
    remarks = [guess] if guess else []
    if plan.command != plan.starts[0][1]:
        remarks.append("with the options that keep it in the foreground")
    if plan.command.may_fail:
        remarks.append("its failure counts as one here, in spite of the prefix -")
    if "|" in plan.command.prefixes:
        remarks.append("without the login shell of the prefix |")
    conversion.key([first], "exec", program, ", ".join(remarks))
    if plan.command.argv0:
        conversion.definition.set("argv0", plan.command.argv0)
    if plan.command.arguments:
        conversion.definition.set("arg", _arguments(plan, plan.command))
    if plan.expands:
        conversion.definition.set("expand_env", True)


def exec_start_pre(conversion: Conversion, plan: Plan, entries: Sequence[Entry]) -> None:
    """Convert ExecStartPre: the first that checks the configuration is `check`, others are steps of `start`."""
    for entry in entries:
        for command in read(conversion.unit, entry):
            if is_check(command) and not conversion.has("check") and plan.shape is not Shape.STEPS:
                _set_check(conversion, plan, entry, command)
            elif plan.shape is Shape.SESSIONS:
                conversion.left_out([entry], NO_FUNCTIONS)
            elif _knows_main_pid(command):
                conversion.left_out([entry], "a function does not know the main process")
            else:
                conversion.before_start.append(Step(command))
                conversion.carried([entry], "in the function start")


def exec_condition(conversion: Conversion, plan: Plan, entries: Sequence[Entry]) -> None:
    for entry in entries:
        for command in read(conversion.unit, entry):
            if conversion.has("check") or plan.shape is Shape.STEPS:
                conversion.left_out([entry], "a service has one check")
            else:
                _set_check(conversion, plan, entry, command, "its failure is a failed start, not one that is skipped")


def _set_check(conversion: Conversion, plan: Plan, entry: Entry, command: Command, text: str = "") -> None:
    program, guess = found_program(command.program)
    words = [program, *_arguments(plan, command)]
    conversion.key([entry], "check", words, ", ".join(filter(None, (guess, text))))
    if plan.expands:
        conversion.definition.set("expand_env", True)


def exec_start_post(conversion: Conversion, plan: Plan, entries: Sequence[Entry]) -> None:
    if plan.shape is not Shape.STEPS:
        conversion.left_out(entries, "no command is run once the program is up")
        return
    for entry in entries:
        conversion.before_start += map(Step, read(conversion.unit, entry))
        conversion.carried([entry], "at the end of the function start")


def exec_reload(conversion: Conversion, plan: Plan, entries: Sequence[Entry]) -> None:
    """Convert ExecReload: a signal, a check in front of it, or the function `reload`."""
    for entry in entries:
        for command in read(conversion.unit, entry):
            signal = _sent(command) or daemons.known_signal(command, daemons.RELOAD_SIGNALS)
            if signal:
                conversion.key([entry], "reload_signal", signal)
            elif is_check(command) and plan.shape is Shape.PROGRAM:
                if conversion.has("check"):
                    conversion.carried([entry], "check runs before a reload, too")
                else:
                    _set_check(conversion, plan, entry, command, "it runs before each start, too")
            elif plan.shape is Shape.SESSIONS:
                conversion.left_out([entry], NO_FUNCTIONS)
            elif _knows_main_pid(command):
                conversion.left_out([entry], "a function does not know the main process")
            else:
                conversion.at_reload.append(Step(command))
                conversion.carried([entry], "in the function reload")


def exec_stop(conversion: Conversion, plan: Plan, entries: Sequence[Entry]) -> None:
    """Convert ExecStop: a signal or, without a process, the function `stop`."""
    for entry in entries:
        for command in read(conversion.unit, entry):
            if plan.shape is Shape.STEPS:
                (conversion.after_stop if plan.remains else conversion.before_start).append(Step(command))
                conversion.carried([entry], f"in the function {'stop' if plan.remains else 'start'}")
                continue
            signal = _sent(command) or daemons.known_signal(command, daemons.STOP_SIGNALS)
            retry = _start_stop_daemon(command)
            if retry:
                conversion.key([entry], "stop_signal", retry[0])
                if retry[1] and not conversion.unit.value("Service", "TimeoutStopSec"):
                    conversion.definition.set("stop_timeout", duration(retry[1]))
            elif signal:
                conversion.key([entry], "stop_signal", signal)
            else:
                conversion.left_out([entry], "a signal has to stop the program, see stop_signal")


def exec_stop_post(conversion: Conversion, plan: Plan, entries: Sequence[Entry]) -> None:
    if plan.shape is Shape.SESSIONS:
        conversion.left_out(entries, NO_FUNCTIONS)
        return
    for entry in entries:
        conversion.after_stop += map(Step, read(conversion.unit, entry))
        conversion.carried([entry], "in the function stop")


def _knows_main_pid(command: Command) -> bool:
    return any(MAIN_PID.search(word) for word in command.arguments)


def _sent(command: Command) -> str:
    """Return the signal that a kill(1) sends to the main process, '' for another command."""
    if command.name != "kill" or not _knows_main_pid(command):
        return ""
    words = [word for word in command.arguments if not MAIN_PID.fullmatch(word) and word != "--"]
    signal = words[-1].lstrip("-") if words else "TERM"
    signal = signal.rpartition("=")[2] if "=" in signal else signal
    if len(signal) > 1 and signal[0] == "s" and words[-1].startswith("-s"):
        signal = signal[1:]
    try:
        return signal_name(signal)
    except ValueNotUnderstood:
        return ""


def _start_stop_daemon(command: Command) -> tuple[str, float] | None:
    """Return the signal of `start-stop-daemon --stop`, and the seconds until it kills, 0 for none."""
    words = list(command.arguments)
    if command.name != "start-stop-daemon" or not {"--stop", "-K"}.intersection(words):
        return None
    signal, wait = "TERM", 0.0
    for option, value in pairwise(words):
        if option in ("--signal", "-s"):
            signal = value
        elif option in ("--retry", "-R"):
            first, *rest = value.split("/")
            signal = signal if first.isdecimal() else first.lstrip("-")
            wait = float(first) if first.isdecimal() else float(rest[0]) if rest and rest[0].isdecimal() else 0.0
    try:
        return signal_name(signal), wait
    except ValueNotUnderstood:
        return None
