"""A minimal root file system of a Debian release, from the packages of the mirror that this host uses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.vm import commands, host

UNREAD = ("doc", "man", "info", "locale")


def bootstrap(suite: str, packages: Sequence[str], target: Path, files: Path | None = None) -> None:
    """Into a new folder, with `files` in place before all but the essential packages come.  Raises BuildError."""
    hooks = [f"--essential-hook=sync-in {files} /"] if files else []
    commands.run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
            *hooks,
            f"--include={','.join(packages)}",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in UNREAD),
            *(f"--aptopt={option}" for option in host.apt_options()),
            suite,
            target,
            *host.apt_sources(suite),
        ]
    )
