"""What a machine is made of, in layers that change more and more often, each of them kept in the cache.

base      disk with Debian, kernel, initial RAM disk                                    by release
workshop  root file system where the project can be installed, with its requirements    by release and requirements
project   tar archive of what is installed                                              by the project's files
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm import commands, host
from tests.vm.bootstrap import bootstrap
from tests.vm.cache import Cache, tree_digest
from tests.vm.suites import MACHINE_PACKAGES

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
CONSTRAINTS = ROOT / "requirements/constraints.txt"
BASE_FILES = HERE / "files" / "base"
# What the project is built from; tests are not, and may change without building it anew.
PROJECT = (
    "spawn_supervisor",
    "supervisor",
    "workers",
    "importer",
    "lua",
    "conf",
    "setup.cfg",
    "setup.py",
    "pyproject.toml",
    "requirements",
    *sorted(page.name for page in ROOT.glob("*.md")),
    "LICENSE",
    "Makefile",
    "tools",
    "docs",
)
DISK_SIZE = "2G"
# They run when they like, and have nothing to do in a machine that lives for minutes.
UNWANTED_UNITS = (
    "e2scrub_reap.service",
    "getty@tty1.service",
    "ldconfig.service",
    "systemd-journal-catalog-update.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
)
# Each reload of systemd runs all of them again; these two act on the kernel's command line.
WANTED_GENERATORS = {"systemd-debug-generator", "systemd-getty-generator"}
NOT_IN_MACHINES = ("setuptools", "wheel", "mypy", "mypy-extensions", "ast-serialize", "librt", "pathspec", "ruff")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Layers:
    """Files that machines read and none writes to."""

    disk: Path
    kernel: Path
    initrd: Path
    project: Path


class Builder:
    def __init__(self, cache: Cache, say: Say) -> None:
        self._cache = cache
        self._say = say

    def layers(self, suite: str) -> Layers:
        """Built now, unless they are in the cache.  Raises BuildError."""
        base = self._base(suite)
        project = self._project(suite)
        return Layers(base / "disk.img", base / "vmlinuz", base / "initrd.img", project / "project.tar")

    def _base(self, suite: str) -> Path:
        inputs = [suite, *MACHINE_PACKAGES, *_own_sources(), tree_digest(HERE, ["files/base"])]

        def build(folder: Path) -> None:
            self._say(f"{suite}: making a disk with Debian")
            with self._cache.scratch() as temporary:
                tree = temporary / "tree"
                bootstrap(suite, MACHINE_PACKAGES, tree, BASE_FILES)
                _furnish(suite, tree)
                for name in ("vmlinuz", "initrd.img"):
                    shutil.copyfile(next((tree / "boot").glob(f"{name}-*")), folder / name)
                commands.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, folder / "disk.img", DISK_SIZE])

        return self._cache.entry(f"base-{suite}", inputs, build)

    def _workshop(self, suite: str) -> Path:
        """Where everything is ready to install the project, but for the project."""
        packages, libraries = ["make", *_makefile_packages()], _check_libraries()
        texts = [path.read_text() for path in (ROOT / "Makefile", CONSTRAINTS)]
        inputs = [suite, *packages, libraries, *_own_sources(), *texts, tree_digest(ROOT, ["tools"])]

        def build(folder: Path) -> None:
            self._say(f"{suite}: making a workshop, with what the project requires")
            with self._cache.scratch() as temporary:
                tree = temporary / "tree"
                bootstrap(suite, packages, tree)
                host.copy_network_configuration(tree)
                _copy_project(tree, ("Makefile", "tools", "setup.cfg", "pyproject.toml", "requirements"))
                (tree / "checks.txt").write_text(libraries)
                _run_script(tree, "prepare.sh")
                commands.run(["tar", "-C", tree, "-cf", folder / "tree.tar", "."])

        return self._cache.entry(f"workshop-{suite}", inputs, build)

    def _project(self, suite: str) -> Path:
        workshop = self._workshop(suite)
        inputs = [workshop.name, *_own_sources(), tree_digest(ROOT, PROJECT)]

        def build(folder: Path) -> None:
            self._say(f"{suite}: installing the project")
            with self._cache.scratch() as temporary:
                tree = temporary / "tree"
                tree.mkdir()
                commands.run(["tar", "-C", tree, "-xf", workshop / "tree.tar"])
                _copy_project(tree, PROJECT)
                _run_script(tree, "install.sh")
                commands.run(["tar", "-C", tree / "out", "-cf", folder / "project.tar", "."])

        return self._cache.entry(f"project-{suite}", inputs, build)


def _own_sources() -> list[str]:
    scripts = sorted((HERE / "files" / "workshop").iterdir())
    return [path.read_text() for path in (HERE / "layers.py", HERE / "bootstrap.py", *scripts)]


def _run_script(tree: Path, name: str) -> None:
    shutil.copyfile(HERE / "files" / "workshop" / name, tree / name)
    commands.run_inside(tree, ["/bin/sh", f"/{name}"], host.environment())


def _makefile_packages() -> list[str]:
    """Install the packages that `make` would install as well, one after the other."""
    command = ["make", "--silent", "--eval", "list: ; @echo $(PACKAGES)", "list"]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.split()


def _check_libraries() -> str:
    """The lines of the constraints that checks need in a machine, in pip's format."""
    _, *parts = re.split(r"^# (\w+)$", CONSTRAINTS.read_text(), flags=re.MULTILINE)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    entries = re.split(r"\n(?=\w)", sections["build"] + sections["test"])
    by_name = {entry.partition("==")[0].strip(): entry.strip() for entry in entries if "==" in entry}
    return "\n".join(entry for name, entry in by_name.items() if name not in NOT_IN_MACHINES)


def _copy_project(tree: Path, names: Sequence[str]) -> None:
    source = tree / "src"
    source.mkdir(exist_ok=True)
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source)


def _furnish(suite: str, tree: Path) -> None:
    """Make of a minimal Debian one that has been booted before, as far as systemd can tell."""
    (tree / "etc/hostname").write_text(f"{suite}\n")
    (tree / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
    units = tree / "etc/systemd/system"
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    for name in UNWANTED_UNITS:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    generators = tree / "etc/systemd/system-generators"
    generators.mkdir(exist_ok=True)
    for generator in (tree / "usr/lib/systemd/system-generators").iterdir():
        if generator.name not in WANTED_GENERATORS:
            (generators / generator.name).symlink_to("/dev/null")
    for name in ("etc/.updated", "var/.updated"):
        (tree / name).touch()
    # `.updated` counts if it is as new as the folder of packages' files
    os.utime(tree / "usr", (0, 0))
