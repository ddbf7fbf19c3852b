"""Pages of `docs/` that lead through a task, followed word by word."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon import BIN, wait_until
from tests.pages import Shell, follow, sections
from tests.ports import free_port, free_ports
from tests.postgres import server_programs


@pytest.fixture
def shell(folder: Path) -> Iterator[Shell]:
    """A shell whose `spawnd` and `spawnctl` have a run-time folder of the test's own."""
    programs = folder / "bin"
    programs.mkdir()
    runtime = folder / "run"
    (programs / "spawnd").write_text(f'#!/bin/sh\nexec {BIN}/spawnd --runtime-dir {runtime} "$@"\n')
    (programs / "spawnctl").write_text(f'#!/bin/sh\nexec {BIN}/spawnctl --socket {runtime}/control "$@"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    shell = Shell(folder, {**os.environ, "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"})
    try:
        yield shell
    finally:
        shell.end()
        if (runtime / "control").exists():
            subprocess.run([programs / "spawnctl", "shutdown"], check=False, timeout=60, capture_output=True)


def test_the_tutorial(shell: Shell, folder: Path) -> None:
    place = folder / "tutorial"
    follow("tutorial.md", shell, place, {"/tmp/tutorial": str(place), "7007": str(free_port())})
    assert not place.exists()


def _start(shell: Shell, folder: Path) -> None:
    """Start spawnd on the files of `services.d`, with a service that has a log already."""
    (folder / "services.d").mkdir()
    other = 'other = { exec = "/bin/sleep", arg = { "infinity" }, stderr = log() }\n'
    (folder / "services.d" / "other.lua").write_text(other)
    shell.run(f"spawnd --config {folder}/services.d 2> {folder}/spawnd.log &")
    wait_until((folder / "run" / "control").exists, "the control socket")


@pytest.mark.skipif(os.geteuid() != 0, reason="the page names a user")
def test_the_page_for_operators_of_inetd(shell: Shell, folder: Path) -> None:
    replace = {"/etc/spawnd/services.d": f"{folder}/services.d"}
    for number, port in zip((7, 13), free_ports(2), strict=True):
        replace[f'tcp("*", {number})'] = f'tcp("127.0.0.1", {port})'
        replace[f"127.0.0.1/{number}\n"] = f"127.0.0.1/{port}\n"
        replace[f"127.0.0.1/{number} "] = f"127.0.0.1/{port} "
    _start(shell, folder)
    follow("inetd.md", shell, folder, replace)


ROOT = Path(__file__).parents[2]
NEEDED_SECTIONS = {"Reload without a lost request": ["A web application in Node.js"]}


def _make_database(folder: Path) -> None:
    """Make an empty cluster for the user postgres, as Debian's package has done for a host."""
    programs = server_programs()
    if programs is None or not _has_user("postgres"):
        pytest.skip("needs Debian's package postgresql")
    folder.mkdir(mode=0o700)
    shutil.chown(folder, "postgres", "postgres")
    subprocess.run(
        [programs / "initdb", "--no-sync", "--auth=trust", "--locale=C.UTF-8", folder],
        user="postgres", group="postgres", extra_groups=[], cwd=folder, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    settings = f"listen_addresses = ''\nunix_socket_directories = '{folder}'\ndynamic_shared_memory_type = mmap\n"
    with (folder / "postgresql.conf").open("a") as file:
        file.write(settings)


def _has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _make_container(folder: Path, replace: dict[str, str]) -> None:
    """Put a `docker` into the shell's path that runs the spawnd of this environment, and a clone of the project."""
    docker = folder / "bin" / "docker"
    program = f'exec {sys.executable} {ROOT}/tests/container.py {folder}/docker "$@"'
    docker.write_text(f"#!/bin/sh\nPATH={BIN}:$PATH {program}\n")
    docker.chmod(0o755)
    del replace["/etc/spawnd/services.d"]
    replace['["spawnd"]'] = f'["{BIN}/spawnd"]'
    (folder / "image").mkdir()
    (folder / "image" / "spawn-supervisor").symlink_to(ROOT)


@pytest.fixture
def containers(folder: Path) -> Iterator[None]:
    """End what a recipe that fails has left."""
    yield
    for pid in folder.glob("docker/*/pid"):
        with suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.mark.skipif(os.geteuid() != 0, reason="the recipes switch users")
@pytest.mark.usefixtures("containers")
@pytest.mark.parametrize("recipe", sections("cookbook.md"))
def test_a_recipe_of_the_cookbook(recipe: str, shell: Shell, folder: Path) -> None:
    if recipe == "Start after the database":
        _make_database(folder / "db")
    chapters = [*NEEDED_SECTIONS.get(recipe, []), recipe]
    if any("Node" in chapter for chapter in chapters) and not Path("/usr/bin/node").exists():
        pytest.skip("needs Debian's package nodejs")
    replace = {
        "/etc/spawnd/services.d": f"{folder}/services.d",
        "/run/cache": f"{folder}/cache",
        "/run/nginx-web": f"{folder}/nginx-web",
        "/etc/signer": f"{folder}/signer",
        "/srv/": f"{folder}/",
        "/var/log/": f"{folder}/",
        "/usr/lib/postgresql/15/bin": str(server_programs()),
        "8080": str(free_port()),
        "8100": str(free_port()),
    }
    if recipe == "A container":
        _make_container(folder, replace)
    _start(shell, folder)
    for chapter in chapters:
        follow("cookbook.md", shell, folder, replace, chapter)
