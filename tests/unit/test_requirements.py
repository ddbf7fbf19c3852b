"""Requirements have upper bounds, and installed packages are listed in their exact releases with hashes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from configparser import RawConfigParser
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
ENTRY = re.compile(r"^([\w.-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
INSTALLS = (
    "Makefile", "tools/own_pip.sh", "tools/install", "tools/download",
    "tests/vm/files/workshop/prepare.sh", "tests/vm/files/workshop/install.sh",
)  # fmt: skip


def constraints() -> str:
    return (ROOT / "requirements/constraints.txt").read_text()


def listed() -> dict[str, str]:
    """Releases by name."""
    return {name: release for name, release, _ in ENTRY.findall(constraints())}


def required() -> Iterator[Requirement]:
    setup = RawConfigParser()
    setup.read(ROOT / "setup.cfg")
    yield from map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"])
    for section, option in (("options", "install_requires"), ("options.extras_require", "test")):
        yield from map(Requirement, setup.get(section, option).split("\n")[1:])


@pytest.mark.parametrize("requirement", list(required()), ids=str)
def test_each_requirement_has_an_upper_bound_and_a_release_within_it(requirement: Requirement) -> None:
    assert {"<", "<=", "==", "~="} & {part.operator for part in requirement.specifier}
    assert requirement.specifier.contains(listed()[canonicalize_name(requirement.name)])


def test_the_list_has_nothing_but_releases_and_hashes() -> None:
    rest = [line for line in ENTRY.sub("", constraints()).splitlines() if line and not line.startswith("# ")]
    assert rest == []
    assert "://" not in constraints()



@pytest.mark.parametrize("name", INSTALLS)
def test_what_comes_from_an_index_is_checked_against_the_hashes(name: str) -> None:
    text = re.sub(r"^ *#.*", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    commands = re.findall(r".*\bpip(?:_\w+)?\b.* (?:install|wheel|download) .*|.*\$\(PIP\).*", text)
    listed_or_local = r"\$\(LISTED\)|\bpip_(?:listed|found) |--require-hashes|--no-index|--no-deps --no-build-isolation"
    for command in commands:
        assert re.search(listed_or_local, command), command


def test_files_that_are_listed_are_checked_against_the_hashes() -> None:
    text = (ROOT / "tools/own_pip.sh").read_text()
    assert 'pip_listed() { pip "$@" --require-hashes --no-deps --no-build-isolation; }' in text
    assert 'pip_listed "$@"' in text.partition("pip_found() {")[2].partition("\n}")[0]


def test_the_tests_run_with_what_is_listed() -> None:
    beside = {name for name, _, _ in ENTRY.findall(constraints().partition("\n# beside\n")[2])}
    listing = {name: release for name, release in listed().items() if name not in beside}
    assert beside
    assert {name: version(name) for name in listing} == listing
