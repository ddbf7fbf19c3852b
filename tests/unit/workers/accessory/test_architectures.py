"""What is written in C, compiled for the other architectures that it knows, where there are compilers for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize("architecture", ["aarch64", "riscv64"])
def test_it_compiles(architecture: str, tmp_path: Path) -> None:
    compiler = f"{architecture}-linux-gnu-gcc"
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"CC": compiler}, check=True)
    for target in ("workers/accessory/init", "workers/accessory/spawn.so", "supervisor/notify/libelsewhere.so"):
        assert (tmp_path / target).stat().st_size > 0
