"""Scripts `run` that only prepare a process and start a program, without a shell."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

from importer.ledger import Directive

_SHELLS = re.compile(r"#!\s*(?:/usr)?/bin/(?:sh|bash|dash)(?:\s+-e)?\s*")
_NOTHING = re.compile(r"set\s+-e|exec\s+2>&1|exec\s+1>&2")
_TOGETHER = re.compile(r"(?<!^exec)\s+2>&1$")  # at the end of a program, where output goes to the log anyway
_EXPORT = re.compile(r"export\s+(?P<name>[A-Za-z_]\w*)=(?P<value>.*)")
_SERVICE = re.compile(r"sv\s+(?:-w\s*\d+\s+)?(?:start|check|up|once)\s+(?P<names>[\w ./@-]+?)\s*(?:\|\|\s*exit\s+\d+)?")
_ULIMIT = {"-n": "nofile", "-u": "nproc", "-c": "core"}
_OF_SHELL = re.compile(r"[|&;<>()`$*?\[\]~{}]")


class NotSimple(Exception):
    """A script that has to stay the program; the text says why."""


@dataclass(slots=True)
class Script:
    """A script as far as it is understood: the command at its end, and the lines before it."""

    command: tuple[Directive, list[str]]
    folder: str = ""
    umask: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    services: list[tuple[Directive, str]] = field(default_factory=list)
    steps: list[Directive] = field(default_factory=list)


def parse(path: str, text: str) -> Script:
    """Return what a script does. Raises NotSimple."""
    lines = _joined(path, text)
    if not text.startswith("#!") or _SHELLS.fullmatch(text.split("\n", 1)[0]) is None:
        raise NotSimple("it is no script of sh")
    if not lines:
        raise NotSimple("it does not exec a program")
    *steps, last = lines
    words = _words(last.text)
    if words[:1] != ["exec"] or len(words) < 2 or words[1].startswith("-"):
        raise NotSimple("it does not exec a program")
    script = Script((last, words[1:]))
    for step in steps:
        _step(script, step)
        script.steps.append(step)
    return script


def _joined(path: str, text: str) -> list[Directive]:
    """Return the commands, each on one line; `2>&1` at the end is what every service has."""
    found: list[Directive] = []
    follows = False
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not follows and (not line or line.startswith("#")):
            continue
        begin = line.removesuffix("\\").rstrip()
        if follows:
            found[-1] = Directive(path, found[-1].line, f"{found[-1].text} {begin}")
        else:
            found.append(Directive(path, number, begin))
        follows = line.endswith("\\")
    return [Directive(each.file, each.line, _TOGETHER.sub("", each.text)) for each in found]


def _words(text: str) -> list[str]:
    """Return the words of a command. Raises NotSimple if a shell would do more than to divide it."""
    if _OF_SHELL.search(text):
        raise NotSimple(f"a shell is needed for {_shown(text)!r}")
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        raise NotSimple(f"a quote is not closed in {_shown(text)!r}") from None


def _shown(text: str) -> str:
    """Return the beginning of a command, without values of variables, which may be secret."""
    return f"{text.partition('=')[0]}=…" if "=" in text else text


def _step(script: Script, step: Directive) -> None:
    text = step.text
    if _NOTHING.fullmatch(text):
        return
    if match := _SERVICE.fullmatch(text):
        script.services += [(step, name.rstrip("/").rpartition("/")[2]) for name in match["names"].split()]
        return
    words = _words(text)
    match words:
        case ["cd", folder] if folder.startswith("/"):
            script.folder = folder
        case ["umask", mask] if re.fullmatch(r"0?[0-7]{1,3}", mask):
            script.umask = f"{int(mask, 8):03o}"
        case ["ulimit", option, number] if option in _ULIMIT and number.isdecimal():
            script.limits[_ULIMIT[option]] = int(number)
        case ["export", _] if export := _EXPORT.fullmatch(" ".join(words)):
            script.environment[export["name"]] = export["value"]
        case _:
            raise NotSimple(f"a shell is needed for {_shown(text)!r}")
