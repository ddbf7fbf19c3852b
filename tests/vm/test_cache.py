from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm import cache as cache_module
from tests.vm.cache import GRACE_S, MAX_AGE_S, Cache, digest, memory_folder, tree_digest


class Oops(Exception):
    pass


def make_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    made = Cache(tmp_path / "cache")
    yield made
    made.close()


def build(cache: Cache, text: str, *inputs: str) -> str:
    """Return the final content of the entry."""
    return (cache.entry("a", inputs, lambda folder: _write(folder, text)) / "file").read_text()


def _write(folder: Path, text: str) -> None:
    (folder / "file").write_text(text)


def test_built_once_for_the_same_inputs(cache: Cache) -> None:
    assert build(cache, "one", "x") == "one"
    assert build(cache, "two", "x") == "one"
    assert build(cache, "three", "y") == "three"
    assert build(cache, "four", "x") == "one"


def test_a_digest_knows_where_one_text_ends() -> None:
    assert len({digest(texts) for texts in (["ab"], ["a", "b"], ["", "ab"], ["b", "a"], [])}) == 5


def test_the_digest_of_a_tree(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    seen = [tree_digest(tmp_path, ["folder", "file", "absent"])]

    def changed() -> bool:
        seen.append(tree_digest(tmp_path, ["folder", "file", "absent"]))
        return seen[-1] not in seen[:-1]

    (folder / "a").write_text("1")
    assert changed()
    (folder / "a").write_text("2")
    assert changed()
    (folder / "a").chmod(0o755)
    assert changed()
    (folder / "a").rename(folder / "b")
    assert changed()
    (tmp_path / "file").write_text("")
    assert changed()
    (tmp_path / "other").write_text("")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_text("")
    assert not changed()


def test_a_failed_build_leaves_nothing_and_is_tried_again(cache: Cache) -> None:
    def fail(folder: Path) -> None:
        _write(folder, "torn")
        raise Oops

    with pytest.raises(Oops):
        cache.entry("a", ["x"], fail)
    assert [path for path in cache.folder.iterdir() if path.is_dir()] == []
    assert build(cache, "whole", "x") == "whole"


def test_who_wants_what_is_being_built_waits_for_it(cache: Cache) -> None:
    begun, go_on, found = threading.Event(), threading.Event(), []

    def slowly(folder: Path) -> None:
        begun.set()
        assert go_on.wait(20)
        _write(folder, "first")

    first = threading.Thread(target=lambda: cache.entry("a", ["x"], slowly))
    second = threading.Thread(target=lambda: found.append(build(cache, "second", "x")))
    first.start()
    assert begun.wait(20)
    second.start()
    # what is not finished is not to be seen, and is left alone by whoever tidies up
    cache.entry("another", [], lambda folder: _write(folder, ""))
    assert [path.name for path in cache.folder.glob("a-*")] == []
    go_on.set()
    first.join(20)
    second.join(20)
    assert found == ["first"]


def test_what_is_too_old_is_built_anew(cache: Cache) -> None:
    make_old(cache.entry("a", ["x"], lambda folder: _write(folder, "old")), MAX_AGE_S + 1)
    cache.close()
    assert build(cache, "new", "x") == "new"
    assert build(cache, "newer", "x") == "new"


def test_what_is_held_stays_and_all_but_the_youngest_go(tmp_path: Path) -> None:
    holder, other = Cache(tmp_path), Cache(tmp_path)
    paths = [holder.entry("a", [text], lambda folder: _write(folder, "")) for text in "12345"]
    for age, path in enumerate(reversed(paths)):
        make_old(path, age)
    other.entry("b", [], lambda folder: _write(folder, "of another kind"))
    other.entry("a", ["5"], _never)
    assert all(path.exists() for path in paths)
    holder.close()
    other.entry("a", ["1"], _never)
    assert [path.exists() for path in paths] == [True, False, False, True, True]
    assert len(list(tmp_path.glob("b-*"))) == 1


def _never(_folder: Path) -> None:
    raise AssertionError("it is there")


def test_a_scratch_folder_goes_with_its_owner(cache: Cache) -> None:
    with cache.scratch() as owned:
        make_old(owned, GRACE_S + 1)
        orphan = cache.folder / "scratch-orphan"
        fresh = cache.folder / "scratch-fresh"
        orphan.mkdir()
        fresh.mkdir()
        make_old(orphan, GRACE_S + 1)
        build(cache, "x")
        assert (owned.exists(), orphan.exists(), fresh.exists()) == (True, False, True)
    assert not owned.exists()


def test_scratch_folders_in_memory_are_beside_no_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", tmp_path / "memory")
    orphan = tmp_path / "memory" / "scratch-orphan"
    orphan.mkdir(parents=True)
    make_old(orphan, GRACE_S + 1)
    with cache.scratch() as owned:
        assert (owned.parent, orphan.exists()) == (tmp_path / "memory", False)
        assert build(cache, "x") == "x"
    cache.close()
    assert list((tmp_path / "memory").iterdir()) == []


def test_a_folder_in_memory_is_nobody_else_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "FORBIDS", 0)
    monkeypatch.setattr(cache_module, "MEMORY_BYTES", 0)
    assert memory_folder(tmp_path / "own") == memory_folder(tmp_path / "own") == tmp_path / "own"
    (tmp_path / "link").symlink_to(tmp_path / "own")
    assert memory_folder(tmp_path / "link") is None
    (tmp_path / "file").write_text("")
    assert memory_folder(tmp_path / "file") is None
    monkeypatch.setattr(cache_module, "MEMORY_BYTES", 1 << 60)
    assert memory_folder(tmp_path / "own") is None
