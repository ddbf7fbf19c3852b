"""The plan that follows from the options of a definition."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.workers.netns.space import options
from workers.netns import plan as module
from workers.netns.plan import OptionsError, read_plan
from workers.network.view import Route


def test_what_is_left_out_is_left_to_the_kernel() -> None:
    plan = read_plan({"name": "a", "link": "a"})
    assert (plan.inside, plan.loopback, plan.keeps_host) == ("net0", True, False)
    assert (plan.mtu, plan.mac, plan.dns, plan.setup) == (None, None, None, None)


def test_addresses_are_as_the_kernel_shows_them() -> None:
    plan = read_plan(options("a", addresses=["::ffff:c000:0202/128"]))
    assert plan.addresses == ("::ffff:192.0.2.2/128",)


@pytest.mark.parametrize(
    ("route", "shown"),
    [
        ({"to": "0.0.0.0/0", "via": "192.0.2.1"}, Route("0.0.0.0/0", "192.0.2.1", 7, 0, 254)),
        ({"to": "::/0", "via": "fd00::1"}, Route("::/0", "fd00::1", 7, 1024, 254)),
        ({"to": "10.0.0.0/8", "metric": 5, "table": 9}, Route("10.0.0.0/8", "", 7, 5, 9)),
    ],
)
def test_routes_are_as_the_kernel_shows_them(route: dict[str, object], shown: Route) -> None:
    assert read_plan(options("a", routes=[route])).routes[0].at(7) == shown


def test_the_script_that_is_there_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETUP_FOLDER", str(tmp_path))
    given = options("a")
    del given["setup"]
    assert read_plan(given).script() == ""
    (tmp_path / "a").touch()
    assert read_plan(given).script() == str(tmp_path / "a")
    assert read_plan(options("a", setup=False)).script() == ""
    assert read_plan(options("a", setup="/b")).script() == "/b"


@pytest.mark.parametrize(
    "wrong",
    [{}, {"name": "a"}, options("a", addresses=["x"]), options("a", routes=[{"too": "::/0"}]), options("a", sysctl=5)],
)
def test_options_that_cannot_be_used(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionsError):
        read_plan(wrong)
