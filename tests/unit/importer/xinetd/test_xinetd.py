"""Each sample of files of xinetd becomes the definitions that stand below it, and they pass the check."""

from __future__ import annotations

from pathlib import Path

import pytest

from importer.result import Outcome
from importer.xinetd import values
from importer.xinetd.convert import convert
from tests.unit.importer.samples import converted, read_samples

SAMPLES = read_samples(Path(__file__).with_name("samples.txt"))


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(name: str, tmp_path: Path) -> None:
    assert converted("xinetd", SAMPLES[name], tmp_path) == SAMPLES[name].result


SERVICES = (("finger", "no"), ("ident", "yes"), ("daytime", "no"))


def test_a_default_has_one_finding_with_its_worst_fate(tmp_path: Path) -> None:
    path = tmp_path / "xinetd.conf"
    services = "".join(f"service {name}\n{{\nwait = {wait}\nserver = /bin/true\n}}\n" for name, wait in SERVICES)
    path.write_text(f"defaults\n{{\nonly_from = 192.0.2.1\ninstances = 5\n}}\n{services}")
    found = [(each.line, each.outcome) for each in convert([str(path)]).findings if each.line < 5]
    assert sorted(found) == [(3, Outcome.LEFT_OUT), (4, Outcome.CARRIED)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.0.0.0", ["0.0.0.0/0", "::/0"]),
        ("0.0.0.0/0", ["0.0.0.0/0"]),
        ("10.0.0.0", ["10.0.0.0/8"]),
        ("10.0.1.0", ["10.0.1.0/24"]),
        ("10.{1,2}", ["10.1.0.0/16", "10.2.0.0/16"]),
        ("192.0.2.0/30", ["192.0.2.0/30"]),
        ("192.0.2.5/24", ["192.0.2.0/24"]),
        ("2001:DB8::1", ["2001:db8::1"]),
        ("::", ["::/0"]),
        ("host", None),
        ("feed", None),
        ("1.2.3.4.5", None),
        ("300.1.2.3", None),
        ("10.{1,x}", None),
    ],
)
def test_networks(text: str, found: list[str] | None) -> None:
    assert values.networks(text) == found


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("8:00-18:00", "08:00-18:01"),
        ("00:00-23:59", "00:00-24:00"),
        ("18:00-08:00", None),
        ("08:00-25:00", None),
        ("now", None),
    ],
)
def test_the_last_minute_of_a_span_belongs_to_it(text: str, span: str | None) -> None:
    assert values.hours(text) == span
