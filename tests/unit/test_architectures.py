"""All that is written in C, compiled for the architectures that it knows, where there are compilers for them."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import supervisor

ROOT = Path(__file__).parents[2]
MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243}  # <elf.h>: EM_X86_64, EM_AARCH64, EM_RISCV


def machine(path: Path) -> int | None:
    """Return the number of the architecture that a program or library is for; None: it is neither."""
    with path.open("rb") as file:
        start = file.read(20)
    return int.from_bytes(start[18:20], "little") if start.startswith(b"\x7fELF") else None


def compiled(architecture: str, folder: Path) -> Path:
    """Return the folder of what has been built for an architecture: what is installed, or what is compiled now."""
    if architecture == platform.machine():
        return Path(supervisor.__file__).parents[1]
    compiler = f"{architecture}-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(folder)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"CC": compiler}, check=True)
    return folder


def files(folder: Path) -> list[Path]:
    return [path for top in ("supervisor", "workers") for path in (folder / top).rglob("*") if path.is_file()]


@pytest.mark.parametrize("architecture", MACHINES)
def test_each_source_compiles(architecture: str, tmp_path: Path) -> None:
    folder = compiled(architecture, tmp_path)
    built = [path for path in files(folder) if machine(path) is not None]
    assert {machine(path) for path in built} == {MACHINES[architecture]}
    sources = {str(path.relative_to(ROOT)) for path in files(ROOT) if path.suffix == ".c"}
    text = (ROOT / "setup.py").read_text()
    assert set(re.findall(r"[\w/]+\.c\b", text)) == sources
    assert {str(path.relative_to(folder)) for path in built} == set(re.findall(r'"([\w/.]+)": \(', text))
