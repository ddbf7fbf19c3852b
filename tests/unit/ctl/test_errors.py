"""Names of workers that nobody has defined lead to their definition, whatever the verb."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.ctl.errors import ExitCode, how_to_apply, how_to_define
from supervisor.definitions.programs import installed
from tests.unit.control.fake_core import FakeCore
from tests.unit.ctl.test_main import EVERY_VERB

ROOT = Path(__file__).parents[3]
WORKERS = sorted(set(installed()) - {"netns"})


def no_log(core: FakeCore) -> None:
    del core.units["log"]


@pytest.mark.parametrize("arguments", [verb for verb in EVERY_VERB if "web" in verb], ids=lambda verb: verb[0])
def test_every_verb(
    spawnctl: Callable[..., int], supervise: Callable[..., None], capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:  # fmt: skip
    supervise(no_log)
    for name, said in {
        "accessory": '; no definition has `accessory = { worker = "accessory", … }`: `make install PLATFORM=1` ',
        "netns@blue": "; it is there where a definition file has `netns.blue = { … }`",
        "netns": "; network namespaces are services of names like netns@blue",
        "log": "; the log worker runs where there is no journal and a service has log()",
    }.items():
        assert spawnctl(*(name if word == "web" else word for word in arguments)) == ExitCode.NO_SUCH_SERVICE
        assert capsys.readouterr().err.startswith(f"spawnctl: no such service {name!r}{said}")


@pytest.mark.parametrize("worker", WORKERS)
def test_what_is_told_of_a_worker_is_there(worker: str) -> None:
    told = how_to_define(worker)
    (page,) = re.findall(r"docs/\w+\.md", told)
    assert (ROOT / page).exists()
    assert (ROOT / "conf" / "services.d" / f"{worker}.lua").exists(), "make install PLATFORM=1 installs this folder"
    assert "PLATFORM=1" in (ROOT / "Makefile").read_text()


def test_other_names_get_no_such_advice() -> None:
    assert {how_to_define(name) for name in ("web", "function", "", "reaper*")} == {""}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('web = { exec = "/x" }', "web"),
        ('\n_G["my-web"] = { exec = "/x" }', "my-web"),
        ('module("dns", package.seeall)', "dns"),
    ],
)
def test_a_definition_that_is_not_in_force_yet(tmp_path: Path, text: str, name: str) -> None:
    path = tmp_path / "a.lua"
    path.write_text(text)
    assert how_to_apply(name, str(tmp_path)) == f"; {str(path)!r} defines it: `spawnctl apply` brings that into force"
    assert how_to_apply(f"{name}2", str(tmp_path)) == ""
    assert how_to_apply("w*", str(tmp_path)) == ""


def test_definitions_that_cannot_be_read(tmp_path: Path) -> None:
    assert how_to_apply("web", str(tmp_path / "none")) == ""
    (tmp_path / "web.lua").symlink_to("nowhere")
    assert how_to_apply("web", str(tmp_path)) == ""
