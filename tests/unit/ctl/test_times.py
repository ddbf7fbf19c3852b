"""The times of a start order, from the control interface."""

from __future__ import annotations

from supervisor.ctl.graph import Times

EPOCH = 1.7e9
HOUR = 3600.0
NEEDS = (("web", "app"), ("app", "db"), ("backup", "db"))


def times(*wanted: str, **spans: tuple[float | None, float | None, float | None]) -> Times:
    """Each span is when it was asked for, began and came up, in seconds."""
    nodes = [
        {"name": name, "state": "running", **{key: None if at is None else EPOCH + at for key, at in zip(
            ("asked", "began", "came_up"), moments, strict=True)}}
        for name, moments in spans.items()
    ]  # fmt: skip
    return Times(nodes, NEEDS, wanted)


def critical(found: Times) -> list[str]:
    return [span.name for span in found.spans if span.critical]


BOOT = {"db": (0.0, 0.1, 2.0), "app": (0.0, 2.1, 3.0), "web": (0.0, 3.1, 4.0)}


def test_the_path_is_what_each_one_waited_for() -> None:
    found = times(**BOOT)
    assert critical(found) == ["db", "app", "web"]
    assert found.zero == EPOCH
    assert [round(span.started, 6) for span in found.spans] == [0.1, 2.1, 3.1]


def test_what_is_asked_for_later_is_not_of_the_boot() -> None:
    found = times(**BOOT, backup=(24 * HOUR, 24 * HOUR, 25 * HOUR))
    assert critical(found) == ["db", "app", "web"]
    assert found.spans[-1].name == "backup"


def test_it_waited_for_nothing_that_was_up_when_it_was_asked_for() -> None:
    found = times("backup", **BOOT, backup=(24 * HOUR, 24 * HOUR, 25 * HOUR))
    assert critical(found) == ["backup"]


def test_what_was_started_from_rest_ends_a_wait_since_the_boot() -> None:
    """db failed at the boot; the others waited until somebody started it anew."""
    found = times("web", db=(HOUR, HOUR, HOUR + 1), app=(0.0, HOUR + 1, HOUR + 2), web=(0.0, HOUR + 2, HOUR + 3))
    assert critical(found) == ["db", "app", "web"]


def test_one_that_is_not_up_yet_is_not_the_end() -> None:
    found = times(db=(0.0, 0.1, 2.0), app=(0.0, 2.1, 3.0), web=(0.0, 3.1, None))
    assert critical(found) == ["db", "app"]
    assert found.spans[-1].took is None


def test_a_life_of_an_older_version_counts_as_asked_for_first() -> None:
    found = times(db=(None, 0.1, 2.0), app=(None, 2.1, 3.0), web=(None, 3.1, 4.0))
    assert critical(found) == ["db", "app", "web"]


def test_nothing_has_begun() -> None:
    found = times(db=(None, None, None))
    assert (found.spans, found.edges) == ([], [])
