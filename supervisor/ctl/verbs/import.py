"""`import`: convert configurations of other supervisors to definition files. No supervisor is needed."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from importer.kinds import KINDS
from supervisor.ctl.client import Client
from supervisor.ctl.errors import ExitCode
from supervisor.ctl.output import print_json, render
from supervisor.printable import count, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importer.checked import Check
    from importer.result import Result

TITLES = ("PLACE", "DIRECTIVE", "OUTCOME", "NOTE")


def arguments(parser: ArgumentParser) -> None:
    kinds = "; ".join(f"{name}: {what}" for name, (_module, what) in KINDS.items())
    parser.add_argument("kind", metavar="KIND", choices=list(KINDS), help=f"kind of the configuration ({kinds})")
    parser.add_argument("paths", metavar="PATH", nargs="+", help="what is converted; only read")
    parser.add_argument(
        "--out", metavar="DIR", type=_folder, help="write the files into this directory, none over another"
    )
    parser.add_argument("--check", action="store_true", help="check the result, and write nothing that is wrong")


def _folder(text: str) -> str:
    if not text:
        raise ArgumentTypeError("the path is empty")
    return text


def run(client: Client, args: Namespace) -> int:
    from importer.kinds import load
    from importer.lua_text import file_text

    result = load(args.kind)(args.paths)
    texts = {file.name: file_text(file) for file in result.files}
    failures = [str(error) for error in result.errors]
    checked = _check(texts) if args.check else None
    written: list[str] = []
    if args.out is not None and not (checked and checked.problems):
        written = _write(args.out, texts, failures)
    if args.json:
        print_json(_record(result, texts, written, checked, failures))
    else:
        if args.out is None:
            print(_together(texts), end="")
        _print_summary(result, written, checked, failures)
    if failures or (checked and checked.problems):
        return ExitCode.USAGE
    from importer.result import Outcome

    return ExitCode.FAILED if result.count(Outcome.LEFT_OUT) else ExitCode.DONE


def _check(texts: dict[str, str]) -> Check:
    from importer.checked import check

    return check(texts)


def _together(texts: dict[str, str]) -> str:
    """Return all files as one text; each of several begins with its name."""
    if len(texts) == 1:
        return next(iter(texts.values()))
    return "\n".join(f"-- {printable(name)}\n{text}" for name, text in texts.items())


def _write(folder: str, texts: dict[str, str], failures: list[str]) -> list[str]:
    """Write the files into a folder, which is made, and return their paths; add to `failures` those that cannot be."""
    written: list[str] = []
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        failures.append(f"cannot make the directory {folder!r}: {error.strerror}")
        return written
    for name, text in texts.items():
        path = os.path.join(folder, name)
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            failures.append(f"cannot write {path!r}: it exists; remove it, or write into another directory")
        except OSError as error:
            failures.append(f"cannot write {path!r}: {error.strerror}")
        else:
            written.append(path)
    return written


def _record(
    result: Result, texts: dict[str, str], written: list[str], checked: Check | None, failures: list[str]
) -> dict[str, object]:
    from importer.result import Outcome

    names = {file.name: [definition.name for definition in file.definitions] for file in result.files}
    return {
        "files": [{"name": name, "services": names[name], "text": text} for name, text in texts.items()],
        "written": written,
        "findings": [
            {
                "file": finding.file,
                "line": finding.line,
                "directive": finding.directive,
                "outcome": finding.outcome,
                "text": finding.text,
            }
            for finding in result.findings
        ],
        "counts": {outcome: result.count(outcome) for outcome in Outcome},
        "errors": failures,
        "check": None if checked is None else {"problems": checked.problems, "notices": checked.notices},
    }


def _print_summary(result: Result, written: list[str], checked: Check | None, failures: list[str]) -> None:
    """Print on stderr what became of each directive, and what has failed."""
    from importer.result import Outcome

    rows = [(each.place, each.shown, str(each.outcome), each.text) for each in result.findings]
    lines = render(TITLES, "<<<<", rows) if rows else []
    numbers = ", ".join(f"{result.count(outcome)} {outcome}" for outcome in Outcome)
    lines.append(f"{count(len(result.findings), 'directive')}: {numbers}")
    lines += [f"written: {printable(path)}" for path in written]
    if checked is not None:
        lines += [printable(text) for text in checked.problems]
        lines += [f"notice: {printable(text)}" for text in checked.notices]
        if not checked.problems:
            lines.append(f"OK: {count(checked.services, 'service')}")
    lines += [f"spawnctl: {printable(text)}" for text in failures]
    print("\n".join(lines), file=sys.stderr)
