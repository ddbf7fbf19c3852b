"""The source distribution and the wheel, and the wheel beside another project that has a package `supervisor`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BACKEND = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
OTHER = "supervisor"
COMMANDS = {"spawn-supervisor": ("spawnd", "--version"), OTHER: ("supervisord", "--version")}


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def pip(*arguments: str | Path) -> str:
    return run(sys.executable, "-I", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the wheels of both projects and our source distribution; ours is built from the latter."""
    folder = tmp_path_factory.mktemp("built")
    checkout = folder / "checkout"
    left_out = shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, checkout, ignore=left_out)
    run(sys.executable, "-I", "-c", BACKEND, "build_sdist", str(folder), cwd=checkout)
    [archive] = folder.glob("*.tar.gz")
    run("tar", "--extract", "--file", archive, cwd=folder)
    [source] = folder.glob("spawn_supervisor-*/")
    run(sys.executable, "-I", "-c", BACKEND, "build_wheel", str(folder), cwd=source)
    listed = folder / "listed"
    listed.write_text(run(ROOT / "tools/section", "beside"))
    pip("download", "--require-hashes", "--no-deps", "--dest", folder, "-r", listed)
    yield folder
    shutil.rmtree(folder)


def wheel(built: Path, project: str) -> Path:
    [found] = built.glob(f"{project.replace('-', '_')}-*.whl")
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    home = tmp_path / "environment"
    run(sys.executable, "-I", "-m", "venv", "--without-pip", home)
    return home


def install(environment: Path, path: Path) -> None:
    pip("--python", environment / "bin/python", "install", "--no-index", "--no-deps", path)


def assert_works(environment: Path, project: str) -> None:
    command, *arguments = COMMANDS[project]
    assert run(environment / "bin" / command, *arguments).strip()


def test_a_release_contains_all_that_is_needed_to_build_it_again(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    tracked = run("git", "ls-files", cwd=ROOT).splitlines() if (ROOT / ".git").exists() else []
    assert {name for name in tracked if name not in packed and os.path.lexists(ROOT / name)} == set()


def test_the_wheel_has_the_files_of_an_installation(built: Path) -> None:
    path = wheel(built, "spawn-supervisor")
    assert path.name.endswith(f"-py3-none-manylinux_2_17_{os.uname().machine}.whl")
    with zipfile.ZipFile(path) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    files = distribution("spawn-supervisor").files or []
    installed = {str(name) for name in files if str(name).startswith("spawn_supervisor/") and name.suffix != ".pyc"}
    assert names == installed


@pytest.mark.parametrize("first", COMMANDS)
def test_another_project_has_a_package_of_the_same_name(built: Path, environment: Path, first: str) -> None:
    [second] = COMMANDS.keys() - {first}
    for project in (first, second):
        install(environment, wheel(built, project))
    for project in COMMANDS:
        assert_works(environment, project)
    theirs = "import supervisor.supervisord; print(supervisor.supervisord.__file__)"
    [packages] = environment.glob("lib/python3*/site-packages")
    assert run(environment / "bin/python", "-I", "-c", theirs).strip() == f"{packages}/supervisor/supervisord.py"
    checked = environment / "a.lua"
    checked.write_text('a = { exec = "/bin/true" }')
    required = packages / "required.pth"
    required.write_text(sysconfig.get_path("purelib"))
    assert "1 service" in run(environment / "bin/spawnd", "--check", "--config", checked)
    required.unlink()
    pip("--python", environment / "bin/python", "uninstall", "--yes", first)
    assert_works(environment, second)
