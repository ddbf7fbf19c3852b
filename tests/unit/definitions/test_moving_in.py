"""docs/moving-in.md and docs/inetd.md: their definitions are accepted, and each key in a right column exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.definitions.service import KEYS
from tests.unit.definitions.loading import Files

DOCS = Path(__file__).parents[3] / "docs"
TEXT = "\n".join((DOCS / name).read_text(encoding="utf-8") for name in ("moving-in.md", "inetd.md"))
CELLS = [row.rsplit("|", 2)[1] for row in re.findall(r"^\|.*\|$", TEXT, re.M)]
# keys that no other supervisor has
WITHOUT_ROW = {"worker", "options", "function_user", "listen_fds", "control", "handover_signal", "restart_signal",
               "idle_cpu", "flush"}  # fmt: skip
SNIPPETS = [code for cell in CELLS for code in re.findall(r"`([^`]+)`", cell) if re.match(r"[a-z_]+ = ", code)]
OTHERS = "".join(f'{name} = {{ exec = "/y" }}\n' for name in ("db", "network", "syslog", "maintenance"))


def accepted(files: Files, body: str) -> bool:
    program = "" if re.search("exec = |trap = ", body) else 'exec = "/x",'
    if re.search('"demand"|accept', body) and not re.search("fd|stdin", body):
        program += 'fd = { stream("/x") },' if '"@' in body else 'fd = { tcp("127.0.0.1", 69) },'
    body = re.sub(r'(user|group|groups) = (\{ )?"[\w-]+"', r'\1 = \2"root"', body)
    return "x" in files.load(f"x = {{ {program} {body} }}\n{OTHERS}").services


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_is_accepted(files: Files, snippet: str) -> None:
    key = snippet.partition(" ")[0]
    assert key in KEYS
    assert accepted(files, snippet)


@pytest.mark.parametrize("key", sorted(KEYS.keys() - WITHOUT_ROW))
def test_every_key_that_others_have_is_named(key: str) -> None:
    has_row = re.search(rf"`[^`]*\b{key} = ", TEXT) is not None
    assert has_row, f"add a row for {key!r} to docs/moving-in.md, or the key to WITHOUT_ROW if it is ours alone"


def test_the_whole_definition_is_accepted(files: Files) -> None:
    [example] = re.findall(r"```lua\nweb = \{\n(.*?)\n\}\n```", TEXT, re.S)
    assert accepted(files, example)


def test_the_message_is_what_a_check_prints(files: Files) -> None:
    shown = re.search(r"^    /etc\S+: web: (unknown key .*)$", TEXT, re.M)
    assert shown
    assert shown[1] in files.problems('web = { exec = "/x", ExecStart = "/usr/sbin/web" }')[0]
