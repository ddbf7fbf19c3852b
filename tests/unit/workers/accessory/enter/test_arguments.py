from __future__ import annotations

import pytest

from workers.accessory.client import ADDRESS
from workers.accessory.enter.arguments import Arguments, Maps, parse_arguments
from workers.accessory.id_map import Extent


def test_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/zsh")
    assert parse_arguments(["--ipc", "a"]) == Arguments("a", True, False, None, ADDRESS, ("/bin/zsh",))
    found = parse_arguments(["--pid", "--address", "@x", "a", "--", "ls", "-l", "--ipc", "--"])
    assert found == Arguments("a", False, True, None, "@x", ("ls", "-l", "--ipc", "--"))


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("0:1000:1", b"0 1000 1\n\x000 1000 1\n"),
        ("0 1000 1", b"0 1000 1\n\x000 1000 1\n"),
        ("0:1000:1,1:5:2/7:8:9", b"0 1000 1\n1 5 2\n\x007 8 9\n"),
    ],
)
def test_maps(text: str, payload: bytes) -> None:
    maps = parse_arguments(["--user", text, "a"]).maps
    assert maps is not None
    assert maps.payload() == payload


def test_a_map_is_of_users_and_of_groups() -> None:
    assert parse_arguments(["--user", "1:2:3/4:5:6", "a"]).maps == Maps((Extent(1, 2, 3),), (Extent(4, 5, 6),))


@pytest.mark.parametrize("text", ["", "0:0", "0:0:1,", "0:0:1/", "a:0:1", "0:0:1:1", "-1:0:1", "\u0661:0:1"])
def test_what_is_no_map(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_arguments([f"--user={text}", "a"])
    assert caught.value.code == 2
    assert "INSIDE:OUTSIDE:COUNT" in capsys.readouterr().err
