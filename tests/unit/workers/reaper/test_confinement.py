"""Paths that stay writable; the integration tests have the whole of it, with a script."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.linux.capabilities import landlock_version
from tests.unit.process.cgroups import mount_point
from tests.unit.process.forked import in_child
from tests.unit.process.launched import service, told
from tests.unit.process.requirements import needs_root
from tests.unit.workers.reaper.ground import ground
from workers.reaper import confinement
from workers.reaper.confinement import confine
from workers.reaper.options import HostError, Options


def has_landlock() -> bool:
    try:
        return landlock_version() > 0
    except OSError:
        return False


needs_landlock = pytest.mark.skipif(not has_landlock(), reason="no Landlock on this host")


def confined(options: Options, *attempts: Callable[[], object]) -> list[str]:
    """Return the errors of attempts in a confined process by name, or nothing."""

    def attempt(what: Callable[[], object]) -> str:
        try:
            what()
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return ""

    def run() -> list[str]:
        confine(options)
        return [attempt(what) for what in attempts]

    return in_child(run)


@needs_landlock
@needs_root
def test_what_is_left(tmp_path: Path) -> None:
    for name in ("data", "mine", "other"):
        (tmp_path / name).mkdir()
    for name in ("other/file", "one", "other/gone"):
        (tmp_path / name).touch()
    options = Options(
        cgroup_root=mount_point(),
        database=f"sqlite:{tmp_path}/data/a.db",
        spool=f"{tmp_path}/data/spool",
        script_writes=(f"{tmp_path}/mine", f"{tmp_path}/one"),
    )

    def fill_database() -> None:
        with closing(sqlite3.connect(tmp_path / "data" / "a.db", isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE t (a)")

    with ground() as own:
        own.make("one")
        results = confined(
            options,
            lambda: own.folder("one").rmdir(),
            fill_database,
            lambda: (tmp_path / "data" / "spool" / "1.rows").touch(),
            lambda: (tmp_path / "mine" / "log").write_text("x"),
            lambda: (tmp_path / "one").write_text("x"),
            lambda: os.truncate(tmp_path / "one", 0),
            lambda: Path("/dev/null").write_text("x"),
            lambda: (tmp_path / "mine" / "log").rename(tmp_path / "mine" / "other"),
            lambda: (tmp_path / "other" / "file").read_bytes(),
        )
        assert results == [""] * 9
    results = confined(
        options,
        lambda: (tmp_path / "other" / "file").write_text("x"),
        lambda: (tmp_path / "other" / "new").touch(),
        lambda: (tmp_path / "other" / "new").mkdir(),
        lambda: (tmp_path / "other" / "gone").unlink(),
        lambda: (tmp_path / "other" / "gone").rename(tmp_path / "mine" / "gone"),
        lambda: (tmp_path / "other" / "link").symlink_to("file"),
        lambda: os.mkfifo(tmp_path / "other" / "fifo"),
        lambda: (tmp_path / "one").unlink(),
    )
    assert set(results) <= {"EACCES", "EXDEV"}
    assert set(os.listdir(tmp_path / "other")) == {"file", "gone"}


@needs_landlock
def test_it_holds_for_what_is_executed(tmp_path: Path) -> None:
    def run() -> int:
        confine(Options(cgroup_root=str(tmp_path / "none")))
        return subprocess.run(["sh", "-c", f"exec 2> /dev/null; echo x > {tmp_path}/x"], check=False).returncode

    assert in_child(run) != 0
    assert not (tmp_path / "x").exists()


@needs_root
def test_what_is_executed_has_none_of_its_capabilities(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(0o600)

    def capabilities(status: str) -> list[int]:
        sets = (line.split() for line in status.splitlines() if line.startswith("Cap"))
        return [int(number, 16) for name, number in sets if name != "CapBnd:"]

    def run() -> tuple[list[int], list[int], list[int]]:
        before = capabilities(Path("/proc/self/status").read_text())
        confine(Options(cgroup_root=str(tmp_path / "none")))
        (tmp_path / "secret").read_bytes()
        after = capabilities(Path("/proc/self/status").read_text())
        program = subprocess.run(["cat", "/proc/self/status"], capture_output=True, check=True, text=True)
        return before, after, capabilities(program.stdout)

    both = 1 << 1  # CAP_DAC_OVERRIDE
    reaper = service(capabilities=("dac_override",))
    assert told(reaper, run) == [[both] * 4, [0, both, both, 0], [0] * 4]


@needs_landlock
@pytest.mark.parametrize(("version", "is_said"), [(2, True), (3, False)])
def test_what_landlock_cannot_forbid_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, version: int, is_said: bool
) -> None:
    monkeypatch.setattr(confinement, "landlock_version", lambda: min(version, landlock_version()))
    caplog.set_level("INFO")

    def run() -> str:
        confine(Options(cgroup_root=str(tmp_path)))
        return caplog.text

    said = in_child(run)
    if landlock_version() >= version:
        assert ("cannot keep the reaper and its script from emptying files" in said) == is_said


@needs_landlock
def test_what_cannot_be_written_to_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def run() -> str:
        confine(Options(cgroup_root=str(tmp_path), script_writes=(f"{tmp_path}/none",)))
        return caplog.text

    assert f"the reaper cannot write to '{tmp_path}/none': No such file or directory" in in_child(run)


def test_a_kernel_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    def missing() -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(confinement, "landlock_version", missing)
    confine(Options(cgroup_root=str(tmp_path)))
    message = "cannot restrict what the reaper and its script write to: no Landlock: Function not implemented"
    assert caplog.text.count(message) == 1


@needs_landlock
def test_what_the_kernel_refuses_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_ruleset: int) -> None:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))

    monkeypatch.setattr(confinement, "landlock_restrict_self", refuse)
    with pytest.raises(HostError, match="cannot restrict what the reaper writes to: Argument list too long"):
        confine(Options(cgroup_root=str(tmp_path)))
