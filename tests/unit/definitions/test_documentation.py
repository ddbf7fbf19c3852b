"""docs/definitions.md names everything that exists, and its examples are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.definitions.convert.descriptor import OPTIONS
from supervisor.definitions.definition_file import SETTINGS_KEYS as SETTINGS
from supervisor.definitions.lua import CONSTRUCTORS
from supervisor.definitions.netns.options import OPTIONS as NETNS
from supervisor.definitions.scalars import LIMIT_UNITS
from supervisor.definitions.service import KEYS
from tests.unit.definitions.loading import Files

TEXT = (Path(__file__).parents[3] / "docs" / "definitions.md").read_text(encoding="utf-8")
NAMESPACES = (Path(__file__).parents[3] / "docs" / "netns.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```lua\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("name", [*KEYS, *OPTIONS, *SETTINGS, *LIMIT_UNITS])
def test_every_key_has_a_row(name: str) -> None:
    has_row = re.search(rf"^\|[^|]*`{name}`", TEXT, re.M) is not None
    assert has_row, f"docs/definitions.md has no row for {name!r}"


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_every_constructor_has_a_row(name: str) -> None:
    has_row = re.search(rf"^\|[^|]*`{name}\(", TEXT, re.M) is not None
    assert has_row, f"docs/definitions.md has no row for the constructor {name!r}"


def test_no_row_names_a_key_that_is_not_there() -> None:
    section = TEXT[TEXT.index("\n## Keys") : TEXT.index("\n## Constructors")]
    rows = [row for row in re.findall(r"^\|([^|]*)\|", section, re.M) if "`" in row]
    unknown = {name for row in rows for name in re.findall(r"`(\w+)`", row)} - set(KEYS)
    assert not unknown, f"docs/definitions.md has rows for keys that do not exist: {unknown}"


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(files: Files, example: str) -> None:
    definitions = files.load(example)
    assert definitions.services or "_SUPERVISOR" in example


@pytest.mark.parametrize("example", re.findall(r"^\| (`.*\|)$", TEXT[: TEXT.index("\n## Constructors")], re.M))
def test_examples_of_keys(files: Files, example: str) -> None:
    key, *_, value = [cell.strip().strip("`") for cell in example.rstrip("|").split("|")]
    key = key.split("`")[0]
    if key == "function_user":
        assert files.load(f'module("x", package.seeall)\nexec = "/x"\n{key} = {value}\nfunction start() end').services
        return
    program = "" if key in ("exec", "worker") else 'worker = "accessory",' if key == "options" else 'exec = "/x",'
    if key == "user":
        value = '"root"'
    if key in ("group", "groups"):
        value = '"root"'
    on_demand = 'status = "demand", fd = { tcp("*", 80) },'
    more = {
        "ready_fd": 'ready = "fd",',
        "pid_file": "forking = true,",
        "idle_stop": on_demand,
        "idle_cpu": f"{on_demand} idle_stop = 1,",
    }.get(key, "")
    others = "".join(f'{name} = {{ exec = "/y" }}\n' for name in ("network", "db", "syslog", "maintenance"))
    assert "x" in files.load(f"x = {{ {program} {more} {key} = {value} }}\n{others}").services


@pytest.mark.parametrize("name", NETNS)
def test_every_key_of_a_network_namespace_has_a_row(name: str) -> None:
    section = TEXT[TEXT.index("\n## Network namespaces") : TEXT.index("\n## Resource limits")]
    has_row = re.search(rf"^\|[^|]*`{name}`", section, re.M) is not None
    assert has_row, f"docs/definitions.md has no row for {name!r} of a network namespace"


@pytest.mark.parametrize("example", re.findall(r"```lua\n(.*?)```", NAMESPACES, re.S))
def test_examples_of_network_namespaces(files: Files, example: str) -> None:
    assert files.load(example).services


def test_the_example_file_of_network_namespaces(files: Files) -> None:
    text = (Path(__file__).parents[3] / "conf" / "services.d" / "netns.lua").read_text(encoding="utf-8")
    assert files.load(text).services == {}
    code = re.sub(r"^-- (?=netns|for|end|  |\})", "", text, flags=re.M)
    assert sorted(files.load(code).services) == [f"netns@customer{number}" for number in range(1, 10)]


ROOT = Path(__file__).parents[3]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHIPPED = sorted((ROOT / "conf").rglob("*.lua"))


def programs() -> list[tuple[str, str]]:
    """Every example of a definition with a program, with the file that it is in."""
    texts = [(path, text) for path in DOCUMENTS for text in re.findall(r"```lua\n(.*?)```", path.read_text(), re.S)]
    texts += [(path, path.read_text()) for path in SHIPPED]
    return [(path.name, text) for path, text in texts if re.search(r"^ *(\w+ = \{ )?exec = ", text, re.M)]


@pytest.mark.parametrize(("name", "text"), programs())
def test_every_example_keeps_what_its_program_says(name: str, text: str) -> None:
    """Whoever begins with a copy of one is not to look for the first error in vain."""
    assert re.search(r"stderr = log\(\)|stderr = log\(\), log\(\)", text) or "proc.exec(" in text
