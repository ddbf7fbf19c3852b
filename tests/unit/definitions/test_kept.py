"""Files that are not evaluated again: the result is always that of an evaluation of all files."""

from __future__ import annotations

import grp
import pwd
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.definitions import databases
from supervisor.definitions.report import Record
from supervisor.definitions.service import Definitions
from supervisor.errors import DefinitionsError
from tests.unit.definitions.loading import Files, read, records

PLAIN = """
_DEFAULT = { user = "daemon", group = "daemon" }
one = { exec = "/bin/sleep", arg = { "1" }, fd = { tcp("127.0.0.1", 7001) } }
two = { exec = "/bin/sleep", depends = "one",
  stop_timeout = 0,
  fd = { udp("*", "domain") }, env = { A = "b" } }
"""
OTHER = """
three = { exec = "/bin/sleep", after = "two" }
"""
MODULE = """
module("m")
user = "daemon"
function start() end
"""


def write(files: Files, texts: dict[str, str]) -> None:
    """Have these files and no others."""
    for path in files.folder.iterdir():
        path.unlink()
    for name, text in texts.items():
        files.write(text, name)


def load(files: Files, before: Definitions, digest: bool = True) -> tuple[list[Record], Definitions]:
    found = records(files.folder, digest=digest, programs=True, before=before)
    return found, read(found, before)


def in_force(definitions: Definitions) -> Definitions:
    """The knowledge of the next evaluation once these definitions are in force."""
    return Definitions(definitions.services, kept=definitions.kept)


def first(files: Files, texts: dict[str, str], digest: bool = True) -> Definitions:
    write(files, texts)
    return in_force(load(files, Definitions(), digest)[1])


def evaluated(files: Files, found: list[Record]) -> list[str]:
    return sorted(Path(record["source"]).name for record in found if "source" in record)


def outcome(files: Files, before: Definitions) -> tuple[Any, ...]:
    """All that an evaluation tells, but for the files that it keeps."""
    try:
        _found, result = load(files, before)
    except DefinitionsError as error:
        return ("problems", error.problems)
    lines = [service.lines for service in result.services.values()]
    return (list(result.services.items()), lines, result.settings, result.notices, result.about, result.digest)


def test_an_unchanged_file_is_not_evaluated(files: Files) -> None:
    before = first(files, {"1.lua": PLAIN, "2.lua": OTHER})
    found, after = load(files, before)
    assert evaluated(files, found) == []
    assert not [record for record in found if "service" in record or "same" in record]
    assert list(after.services) == ["one", "two", "three"]
    assert all(after.services[name] is service for name, service in before.services.items())
    assert after.kept == before.kept


def test_only_a_changed_file_is_evaluated_and_only_a_changed_service_told(files: Files) -> None:
    before = first(files, {"1.lua": PLAIN, "2.lua": OTHER})
    write(files, {"1.lua": PLAIN.replace('"1"', '"2"'), "2.lua": OTHER})
    found, after = load(files, before)
    assert evaluated(files, found) == ["1.lua"]
    assert [record["service"]["name"] for record in found if "service" in record] == ["one"]
    assert after.services["two"] is before.services["two"]
    assert after.services["one"].arg == ("2",)
    assert evaluated(files, load(files, in_force(after))[0]) == []


def test_a_service_that_moved_within_its_file_is_told(files: Files) -> None:
    before = first(files, {"1.lua": PLAIN})
    write(files, {"1.lua": PLAIN.replace("\n  stop_timeout", "\n\n  stop_timeout")})
    _found, after = load(files, before)
    assert after.services["one"] is before.services["one"]
    assert after.services["two"].lines["stop_timeout"] == before.services["two"].lines["stop_timeout"] + 1


def test_free_data_is_compared_with_its_types(files: Files) -> None:
    text = 'x = { worker = "accessory", options = { a = 1 } }'
    before = first(files, {"1.lua": text})
    write(files, {"1.lua": text.replace("a = 1", "a = true")})
    assert load(files, before)[1].services["x"].options == {"a": True}
    assert load(files, before)[1].services["x"].options["a"] is True


def test_the_first_digest_may_come_later(files: Files) -> None:
    before = first(files, {"1.lua": PLAIN, "2.lua": OTHER}, digest=False)
    found, after = load(files, before)
    assert evaluated(files, found) == []
    assert after.digest == load(files, Definitions())[1].digest
    assert {len(kept.digests) for kept in after.kept.values()} == {32, 16}


FLEETING = [
    "x = { exec = '/x', arg = { os.date('%Y') } }",
    "local time = os; x = { exec = '/x', arg = { 'a' } }",
    "x = { exec = '/x', arg = { _G['o' .. 's'].date('%Y') } }",
    "module('m', package.seeall); exec = '/x'; arg = { os.date('%Y') }",
    "x = { exec = '/x', arg = { 'a', undefined } }",
    "netns.n = { }",
    "x = { exec = '/x', fd = { tcp('127.0.0.1', 1, { netns = 'n' }) } }",
    "_SUPERVISOR = { log_level = 'info' }",
]


@pytest.mark.parametrize("text", FLEETING)
def test_a_file_that_may_mean_something_else_is_evaluated_again(files: Files, text: str) -> None:
    before = first(files, {"1.lua": text, "2.lua": OTHER.replace('"two"', "{}")})
    assert evaluated(files, load(files, before)[0]) == ["1.lua"]


def test_a_function_that_reads_the_clock_once_it_runs_changes_nothing(files: Files) -> None:
    text = MODULE.replace('module("m")', 'module("m", package.seeall)').replace("start()", "start() print(os.time())")
    before = first(files, {"1.lua": text})
    found, after = load(files, before)
    assert [record for record in found if "unchanged" in record]
    assert after.sources == {f"{files.folder}/1.lua": text}  # the text is needed for calls


PLACE = {"1.lua": PLAIN, "2.lua": OTHER, "3.lua": MODULE}
CHANGES = {
    "nothing": {},
    "a file is gone": {"1.lua": None},
    "the last file is gone": {"2.lua": None},
    "a service is gone": {"1.lua": PLAIN.replace("one", "eins").replace('depends = "eins"', 'depends = "eins"')},
    "a dependency is gone": {"1.lua": PLAIN.replace("two =", "zwei =")},
    "a new file": {"0.lua": "zero = { exec = '/x', depends = 'three' }"},
    "a cycle": {"1.lua": PLAIN.replace('arg = { "1" }', 'after = "three"')},
    "the same name, later": {"4.lua": "one = { exec = '/x' }"},
    "the same name, before": {"0.lua": "one = { exec = '/x' }"},
    "the same address": {"4.lua": "four = { exec = '/x', fd = { tcp('127.0.0.1', 7001) } }"},
    "the same address, before": {"0.lua": "zero = { exec = '/x', fd = { tcp('127.0.0.1', 7001) } }"},
    "a secret": {"4.lua": "four = { exec = '/x', user = 'daemon', group = 'daemon', stdin = file('/etc/shadow') }"},
    "no program": {"2.lua": OTHER.replace("/bin/sleep", "/nowhere")},
    "a mistake": {"2.lua": OTHER + "x = 1"},
    "not Lua": {"2.lua": "three = {"},
    "a setting": {"4.lua": "_SUPERVISOR = { log_level = 'debug' }"},
    "a name that is like one": {"4.lua": "four = { exec = '/x', after = 'thre' }"},
    "an empty file": {"4.lua": ""},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_has_the_same_result_with_kept_files(files: Files, change: dict[str, str | None]) -> None:
    before = first(files, PLACE)
    write(files, {name: text for name, text in sorted({**PLACE, **change}.items()) if text is not None})
    assert outcome(files, before) == outcome(files, Definitions())


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_back_has_the_same_result_with_kept_files(files: Files, change: dict[str, str | None]) -> None:
    texts = {name: text for name, text in sorted({**PLACE, **change}.items()) if text is not None}
    write(files, texts)
    try:
        before = in_force(load(files, Definitions())[1])
    except DefinitionsError:
        before = Definitions()
    write(files, PLACE)
    assert outcome(files, before) == outcome(files, Definitions())


def test_notices_of_a_kept_file_name_their_lines(files: Files) -> None:
    text = "\n".join(["x = {", '  exec = "/nowhere",', "  stop_timeout = 0,", "}"])
    before = first(files, {"1.lua": text})
    found, after = load(files, before)
    assert evaluated(files, found) == []
    where = f"{files.folder}/1.lua"
    assert after.notices == (
        f"{where}:3: x: stop_timeout: 0 kills at once, without time to stop; false means no limit",
        f"{where}:2: x: exec: '/nowhere' does not exist",
    )


def account(uid: int, name: str = "daemon", gid: int = 1, home: str = "/") -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", home, "/bin/sh"))


@pytest.mark.parametrize(
    ("text", "name", "replaced", "answer"),
    [
        ("user = 'daemon', group = 'daemon'", "getpwnam", pwd, account(77)),
        ("user = 'daemon', group = 'daemon'", "getgrnam", grp, grp.struct_group(("daemon", "x", 77, []))),
        ("user = 'daemon', group = 'daemon', login_env = true", "getpwuid", pwd, account(1, home="/elsewhere")),
        ("user = 'daemon'", "getgrgid", grp, grp.struct_group(("other", "x", 1, []))),
        ("fd = { tcp('127.0.0.1', 'domain') }", "getservbyname", socket, 5353),
        ("fd = { tcp('localhost', 1) }", "getaddrinfo", socket, [(2, 1, 6, "", ("192.0.2.9", 0))]),
        ("fd = { tcp('*', 1) }", "has_ipv6", databases, False),
        ("worker = 'reaper'", "_is_installed", databases, False),
    ],
)
def test_another_answer_of_a_database_counts(
    files: Files, monkeypatch: pytest.MonkeyPatch, text: str, name: str, replaced: Any, answer: Any
) -> None:
    if name == "getaddrinfo":
        monkeypatch.setattr(socket, name, lambda *_, **__: [(2, 1, 6, "", ("127.0.0.1", 0))])
    program = "" if "worker" in text else "exec = '/bin/sleep', "
    before = first(files, {"1.lua": f"x = {{ {program}{text} }}", "2.lua": "y = { exec = '/bin/sleep' }"})
    assert evaluated(files, load(files, before)[0]) == []
    monkeypatch.setattr(replaced, name, lambda *_, **__: answer)
    known, fresh = outcome(files, before), outcome(files, Definitions())
    assert known == fresh
    assert known[0] != list(before.services.items()) or name == "getgrgid"


def test_a_user_that_is_gone_counts(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise KeyError(name)

    before = first(files, {"1.lua": "x = { exec = '/bin/sleep', user = 'daemon', group = 'daemon' }"})
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(DefinitionsError, match="unknown user 'daemon'"):
        load(files, before)


def test_a_kept_file_with_too_many_services_is_a_problem(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    from supervisor.definitions import evaluate

    before = first(files, {"1.lua": PLAIN, "2.lua": OTHER})
    monkeypatch.setattr(evaluate, "MAX_SERVICES", 2)
    assert outcome(files, before) == outcome(files, Definitions())


def test_kept_files_survive_a_mistake_elsewhere(files: Files) -> None:
    before = first(files, {"1.lua": PLAIN, "2.lua": OTHER})
    write(files, {"1.lua": PLAIN, "2.lua": "three = "})
    with pytest.raises(DefinitionsError):
        load(files, before)
    write(files, {"1.lua": PLAIN, "2.lua": OTHER})
    assert evaluated(files, load(files, before)[0]) == []


def test_a_service_with_other_spellings_of_equal_values_is_in_force(files: Files) -> None:
    before = first(files, {"1.lua": "x = { exec = '/bin/sleep', stop_timeout = '5s' }"})
    write(files, {"1.lua": "x = { exec = '/bin/sleep', stop_timeout = 5 }"})
    found, after = load(files, before)
    assert [record["same"] for record in found if "same" in record] == ["x"]
    assert after.services["x"] is before.services["x"]
    assert after == replace(load(files, Definitions())[1], kept=after.kept)
