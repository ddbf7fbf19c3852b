"""Write constraints.txt: the release of everything that is installed, with the hashes of its files.

    make constraints

The index is that of pip's configuration.  The requirements are resolved for the Python that runs this, which has to be
the oldest one that is supported; wheels are listed for each Python and processor below, a source archive where a
project has no wheels.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "requirements/constraints.txt"
PYTHONS = ("3.11", "3.12", "3.13")
PROCESSORS = ("x86_64", "aarch64")
NEWEST_GLIBC, OLDEST_GLIBC = 36, 5  # minor versions: that of Debian 12, and the oldest that wheels are built for
BESIDE = ["supervisor >= 4.2, < 5"]  # has a package of the name of one of ours: a test installs both
HEAD = """\
# Everything that is installed, in its exact release, with the hashes of its files.  `make constraints` writes this
# file.  A section has what the sections before it lack.
"""


def main() -> None:
    requirements: list[str] = []
    known: set[str] = set()
    text = HEAD
    for section, lines in sections().items():
        requirements += lines
        releases = {name: found for name, found in resolve(requirements).items() if name not in known}
        known |= releases.keys()
        text += f"\n# {section}\n"
        for (name, version), hashes in sorted(hashes_of(releases).items()):
            text += " \\\n".join([f"{name}=={version}", *(f"    --hash=sha256:{digest}" for digest in sorted(hashes))])
            text += "\n"
    TARGET.write_text(text)


def sections() -> dict[str, list[str]]:
    """The requirements of each section, without what they require themselves."""
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {
        "build": project["build-system"]["requires"],
        "run": setup.get("options", "install_requires").split("\n")[1:],
        "test": setup.get("options.extras_require", "test").split("\n")[1:],
        "beside": BESIDE,
    }


def resolve(requirements: Iterable[str]) -> dict[str, tuple[str, bool]]:
    """Version of each project by its normalised name, and whether it has wheels."""
    report = pip("install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-", *requirements)
    found = {}
    for entry in json.loads(report)["install"]:
        has_wheels = entry["download_info"]["url"].endswith(".whl")
        found[normalised(entry["metadata"]["name"])] = entry["metadata"]["version"], has_wheels
    return found


def hashes_of(releases: dict[str, tuple[str, bool]]) -> dict[tuple[str, str], set[str]]:
    """The hashes of the files that the index has of each release, for all targets."""
    built = [f"{name}=={version}" for name, (version, has_wheels) in releases.items() if has_wheels]
    sources = [f"{name}=={version}" for name, (version, has_wheels) in releases.items() if not has_wheels]
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    with tempfile.TemporaryDirectory() as folder:
        for options in targets():
            pip("download", "--no-deps", "--only-binary=:all:", "--quiet", "--dest", folder, *options, *built)
        if sources:
            pip("download", "--no-deps", "--no-binary=:all:", "--no-build-isolation", "--dest", folder, *sources)
        for path in Path(folder).iterdir():
            name = next(name for name in releases if is_of(path.name, name, releases[name][0]))
            found[name, releases[name][0]].add(hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def targets() -> Iterator[list[str]]:
    """Options of pip that choose a Python and a processor, with each C library from the newest to the oldest."""
    for python in PYTHONS:
        for processor in PROCESSORS:
            platforms = [f"manylinux_2_{minor}_{processor}" for minor in range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)]
            names = [*platforms, f"manylinux2014_{processor}", f"manylinux1_{processor}", f"linux_{processor}"]
            yield ["--python-version", python, *(f"--platform={name}" for name in names)]


def is_of(file: str, name: str, version: str) -> bool:
    """Whether a file of the index, a wheel or a source archive, is of a release."""
    return normalised(file).startswith(normalised(f"{name}-{version}-"))


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"cannot run pip {' '.join(arguments)}: status {result.returncode}")
    return result.stdout


if __name__ == "__main__":
    main()
