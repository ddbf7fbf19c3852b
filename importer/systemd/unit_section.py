"""The [Unit] and [Install] sections, and those of timers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from importer.systemd import service, values
from importer.systemd.commands import Plan, is_check, read
from importer.systemd.conversion import Conversion, Shape
from importer.systemd.order import AT_BOOT, REQUIRES, WANTS, Order
from importer.systemd.steps import Step
from importer.systemd.unit_file import Entry
from importer.systemd.units import CONDITIONS, Unit
from importer.systemd.values import ValueNotUnderstood
from importer.systemd.words import Command
from importer.values import Value

Handler = Callable[[Conversion, Sequence[Entry]], None]

TEST = "/usr/bin/test"
TESTS = {
    "PathExists": "-e",
    "PathIsDirectory": "-d",
    "PathIsSymbolicLink": "-L",
    "PathIsReadWrite": "-w",
    "FileNotEmpty": "-s",
    "FileIsExecutable": "-x",
}
SKIPPED = "its failure is a failed start, not one that is skipped"
CRON = "cron runs `spawnctl start {name}`"


def description(conversion: Conversion, entries: Sequence[Entry]) -> None:
    if conversion.has("description"):
        conversion.carried(entries, "the service has one")
    else:
        conversion.key(entries, "description", " ".join(conversion.unit.expand(entries[-1].value).split()))


def documentation(conversion: Conversion, entries: Sequence[Entry]) -> None:
    conversion.carried(entries, "a comment")
    conversion.definition.comments += [word for entry in entries for word in entry.value.split()]


def condition(plan: Plan | None) -> Handler:
    """Return the handler of conditions and assertions, which become tests of paths."""

    def handle(conversion: Conversion, entries: Sequence[Entry]) -> None:
        for entry in entries:
            try:
                _test(conversion, plan, entry)
            except ValueError as error:
                conversion.left_out([entry], str(error))

    return handle


def _test(conversion: Conversion, plan: Plan | None, entry: Entry) -> None:
    kind = entry.key.removeprefix("Condition").removeprefix("Assert")
    value = conversion.unit.expand(entry.value)
    if kind not in TESTS or plan is None:
        raise ValueNotUnderstood("nothing looks at it before a start")
    if value.startswith("|"):
        raise ValueNotUnderstood("of several conditions, all have to hold")
    words: list[str] = ["!"] if value.startswith("!") else []
    words += [TESTS[kind], values.absolute(value.lstrip("!"))]
    text = SKIPPED if entry.key.startswith("Condition") else ""
    known = conversion.definition.keys.get("check")
    unit = conversion.unit
    has_own = any(is_check(command) for each in unit.all("Service", "ExecStartPre") for command in read(unit, each))
    if plan.shape is Shape.STEPS or (has_own and plan.shape is Shape.PROGRAM):
        conversion.before_start.append(Step(Command(TEST, tuple(words)), as_anyone=True))
        if text:
            conversion.approximate([entry], text)
        else:
            conversion.carried([entry], "in the function start")
        return
    if has_own:
        raise ValueNotUnderstood("a service has one check")
    before: list[Value] = [*known, "-a"] if isinstance(known, list) else [TEST]
    escaped: list[Value] = [word.replace("$", "$$") if plan.expands else word for word in words]
    conversion.key([entry], "check", [*before, *escaped], text)


def install(order: Order) -> dict[str, Handler]:
    """Return the handlers of [Install]."""

    def wanted(conversion: Conversion, entries: Sequence[Entry]) -> None:
        for entry in entries:
            units = conversion.unit.expand(entry.value).split()
            far = [unit for unit in units if unit not in AT_BOOT and unit not in order.names]
            if not far or any(unit in ("sockets.target", "timers.target") for unit in far):
                conversion.carried([entry])
            else:
                conversion.approximate([entry], "it starts with spawnd")

    def also(conversion: Conversion, entries: Sequence[Entry]) -> None:
        for entry in entries:
            if all(unit in order.names for unit in conversion.unit.expand(entry.value).split()):
                conversion.carried([entry])
            else:
                conversion.left_out([entry], "it is converted where it is given, too")

    def alias(conversion: Conversion, entries: Sequence[Entry]) -> None:
        conversion.left_out(entries, "a service has one name")

    return {"WantedBy": wanted, "RequiredBy": wanted, "UpheldBy": wanted, "Also": also, "Alias": alias}


def handlers(order: Order, plan: Plan | None) -> dict[tuple[str, str], Handler]:
    """Return the handlers of all sections of a service or target, by section and key; `plan` is that of a service."""
    found: dict[tuple[str, str], Handler] = {
        ("Unit", "Description"): description,
        ("Unit", "Documentation"): documentation,
        ("Unit", "StartLimitBurst"): service.start_limit_burst,
        ("Unit", "StartLimitInterval"): service.start_limit_interval,
        ("Unit", "StartLimitIntervalSec"): service.start_limit_interval,
    }
    for key in ("After", "Before", "Conflicts", *REQUIRES, *WANTS):
        found["Unit", key] = order.convert
    for key, handle in install(order).items():
        found["Install", key] = handle
    if plan is not None:
        for key, handle in service.handlers(plan).items():
            found["Service", key] = handle
    return found


def convert_sections(
    conversion: Conversion, unit: Unit, order: Order, plan: Plan | None, own: Mapping[str, Handler] | None = None
) -> None:
    """Convert [Unit], [Install] and [Service], if there is a plan of one, each key at the place of its first line.

    `own` are more handlers of [Service].
    """
    known = handlers(order, plan)
    known.update((("Service", key), handle) for key, handle in (own or {}).items())
    sections = ("Unit", "Install") if plan is None else ("Unit", "Service", "Install")
    done: set[tuple[str, str]] = set()
    for entry in unit.entries:
        key = (entry.section, entry.key)
        if key in done or entry.section not in sections:
            continue
        done.add(key)
        entries = [each for each in unit.entries if (each.section, each.key) == key]
        handle = known.get(key)
        if handle is None and entry.section == "Unit" and entry.key.startswith(CONDITIONS):
            handle = condition(plan)
        try:
            (handle or service.other)(conversion, entries)
        except ValueError as error:
            conversion.left_out(entries, str(error))


def timer(conversion: Conversion, entries: Sequence[Entry]) -> None:
    """Record the directives of a timer."""
    for entry in entries:
        if entry.key == "Unit":
            conversion.carried([entry])
        elif entry.key.startswith("On"):
            conversion.left_out([entry], CRON.format(name=conversion.definition.name))
        else:
            conversion.left_out([entry], "cron has no such setting")
