"""The caller's environment changes nothing: its locale, its Python settings, its working directory."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import spawn_supervisor
from tests.daemon import BIN, Daemon, wait_until
from tests.integration.versions import install

Program = Callable[[str, str], str]

TEXT = "Grüße, 日本"
REPORT = """#!/bin/sh
printf '%s\\n' "$0" "$@" "$VARIABLE" "$PWD" > "$1.new"
mv "$1.new" "$1"
exec sleep 100000
"""
SPY = """
import sys
with open({path!r}, "a") as file:
    file.write(repr(sys.orig_argv) + "\\n")
"""


@pytest.fixture(scope="module")
def locale_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A folder for $LOCPATH with the locale de_DE.ISO-8859-1, and the name of that."""
    if shutil.which("localedef") is None or not Path("/usr/share/i18n/charmaps/ISO-8859-1.gz").exists():
        pytest.skip("localedef and its sources are not installed (package locales)")
    folder = tmp_path_factory.mktemp("locale")
    target = str(folder / "de_DE.ISO-8859-1")
    subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", target], check=True, capture_output=True)
    folder.chmod(0o755)
    yield str(folder)
    shutil.rmtree(folder)


def _environment(locale: str, locale_path: str) -> dict[str, str]:
    return {"LOCPATH": locale_path, "LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("script", ["of make", "of pip"])
@pytest.mark.parametrize("locale", ["de_DE.ISO-8859-1", "C", "C.UTF-8"])
def test_definitions_are_utf8_in_every_locale(
    folder: Path, program: Program, locale_path: str, locale: str, script: str
) -> None:
    """Arguments, environment and paths of a service, before and after spawnd has executed itself anew."""
    (folder / "Straße").mkdir()
    report = program("prüfen", REPORT)
    out = folder / "out" / "é"
    definitions = (
        f'a = {{ exec = "{report}", arg = {{ "{out}", "{TEXT}" }}, env = {{ VARIABLE = "{TEXT}" }},'
        f' cwd = "{folder}/Straße" }}'
    )
    expected = "\n".join([report, str(out), TEXT, TEXT, f"{folder}/Straße", ""]).encode()
    daemon = Daemon(folder, definitions, env=_environment(locale, locale_path))
    daemon.program = install(folder, options="") if script == "of pip" else daemon.program
    with daemon:
        wait_until(out.exists, "the report")
        assert out.read_bytes() == expected
        assert daemon.ctl("reexec").returncode == 0
        out.unlink()
        assert daemon.ctl("restart", "a").returncode == 0
        wait_until(out.exists, "the report after the exec")
        assert out.read_bytes() == expected


def test_paths_of_the_command_line_are_those_that_were_typed(folder: Path, locale_path: str) -> None:
    """They are bytes, also those that are no UTF-8."""
    inside = os.fsencode(folder) + b"/\xfc"
    os.mkdir(inside)
    with open(inside + b"/a.lua", "wb") as file:
        file.write("a = { exec = '/Grüße' }".encode())
    result = subprocess.run(
        [install(folder, options=""), "--check", "--config", inside],
        env={**os.environ, **_environment("de_DE.ISO-8859-1", locale_path)},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, b"OK: 1 service, 1 notice\n"), result.stderr


def test_folders_whose_names_are_not_utf8(folder: Path) -> None:
    """Processes, the log and spawnctl show each byte that is no character as that byte."""
    inside = Path(os.fsdecode(os.fsencode(folder) + b"/b\xfc"))
    inside.mkdir(0o755)
    daemon = Daemon(inside, 'a = { exec = "/bin/sleep", arg = { "100000" }, control = true, ready = "exec" }\n')
    with daemon:
        daemon.wait_running("a")
        assert rf"{folder}/b\xfc/" in daemon.ctl("status", "a").stdout
        assert rf"{folder}/b\xfc/" in daemon.ctl("show", "a").stdout
        title = rf"spawnd {folder}/b\xfc/run"
        assert Path(f"/proc/{daemon.pid}/cmdline").read_text().strip("\0") == title
        daemon.ctl("reexec")
        assert daemon.state("a") == "running"
        assert Path(f"/proc/{daemon.pid}/cmdline").read_text().strip("\0") == title
        inside.joinpath("new.lua").write_text("")
    other = Daemon(inside, "")
    command = [*other.command(), "--runtime-dir", f"{inside}/new.lua"]
    result = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert result.returncode == 1
    assert rf"cannot use run-time directory '{folder}/b\xfc/new.lua'".encode() in result.stderr
    assert rf"no supervisor at '{folder}/b\xfc/" in daemon.ctl("list").stderr


@pytest.mark.parametrize("script", ["of make", "of pip"])
def test_python_is_isolated(folder: Path, script: str) -> None:
    """Also in a worker that is executed, in a trial, and in the process after the exec."""
    spied = folder / "out" / "spied"
    (folder / "python").mkdir()
    (folder / "python" / "sitecustomize.py").write_text(SPY.format(path=str(spied)))
    definitions = 'a = { exec = "/bin/sleep", arg = { "100000" } }\nmodule("m")\nfunction start() end\n'
    daemon = Daemon(folder, definitions, env={"PYTHONPATH": str(folder / "python")})
    daemon.program = install(folder, options="") if script == "of pip" else daemon.program
    with daemon:
        daemon.wait_running("a")
        assert daemon.ctl("reexec").returncode == 0
        daemon.wait_log("executed anew")
    seen = spied.read_text().splitlines() if spied.exists() else []
    # a script of pip is not isolated before its first line runs: at the start, in the trial, after the exec
    assert len(seen) == (3 if script == "of pip" else 0), seen


def test_a_package_that_only_pythonpath_leads_to_is_found(folder: Path) -> None:
    """Such as one in a folder of `pip install --target`: isolated, another one would run after the exec, or none."""
    ours = folder / "target/spawn_supervisor"
    shutil.copytree(spawn_supervisor.HERE, ours)
    daemon = Daemon(
        folder,
        'a = { exec = "/bin/sleep", arg = { "100000" } }',
        env={"PYTHONPATH": str(folder / "target"), "PYTHONUTF8": "0"},
    )
    said = f"import supervisor; print(supervisor.__file__, file=open('{folder}/out/found', 'a'))"
    daemon.program = install(folder, first=said, options="")
    with daemon:
        daemon.wait_running("a")
        assert daemon.ctl("reexec").returncode == 0
        daemon.wait_log("executed anew")
    found = (folder / "out" / "found").read_text().splitlines()
    assert found == [str(ours / "supervisor/__init__.py")] * 6  # start, trial, exec: each twice


def test_relative_paths_are_below_the_working_directory(folder: Path) -> None:
    """spawnd changes its own to /."""
    daemon = Daemon(folder, 'a = { exec = "/bin/sleep", arg = { "100000" } }')
    daemon.prefix = ["env", "--chdir", str(folder)]
    daemon.definitions, daemon.runtime = Path("services.lua"), Path("run")
    with daemon:
        daemon.wait_running("a")
        relative = [str(BIN / "spawnctl"), "--socket", "run/control", "list"]
        assert subprocess.run(relative, cwd=folder, capture_output=True, timeout=60, check=False).returncode == 0
        assert daemon.ctl("reexec").returncode == 0
    assert sorted(os.listdir(folder)) == ["log", "out", "run", "services.lua"]


def test_a_relative_folder_of_the_environment_is_below_the_working_directory(folder: Path) -> None:
    daemon = Daemon(folder, 'a = { exec = "/bin/sleep", arg = { "100000" } }', env={"RUNTIME_DIRECTORY": "run"})
    daemon.prefix = ["env", "--chdir", str(folder)]
    command = [*daemon.prefix, daemon.program, "--config", str(daemon.definitions)]
    daemon.command = lambda: command  # type: ignore[method-assign]
    with daemon:
        daemon.wait_running("a")


def test_a_folder_with_files_of_others_is_refused_and_left_alone(folder: Path) -> None:
    other = folder / "run"
    other.mkdir(mode=0o700)
    for name in ("pid", "state", "notes"):
        (other / name).write_text(f"{name} of somebody else")
    daemon = Daemon(folder, "")
    result = subprocess.run(daemon.command(), capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert f"cannot use run-time directory {str(other)!r}: it holds 'notes', which is not spawnd's" in result.stderr
    assert {path.name: path.read_text() for path in other.iterdir()} == {
        name: f"{name} of somebody else" for name in ("pid", "state", "notes")
    }
    assert other.stat().st_mode & 0o777 == 0o700


def test_strict_goes_with_check() -> None:
    result = subprocess.run([BIN / "spawnd", "--strict"], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, "--strict goes with --check" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "command",
    [["spawnd", "--runtime-dir", ""], ["spawnd", "--check", "--config", ""], ["spawnctl", "--socket", "", "list"]],
)
def test_an_empty_path_is_an_error_of_usage(command: list[str]) -> None:
    """`--socket "$UNSET"` is not the system's supervisor."""
    result = subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert "the path is empty" in result.stderr
