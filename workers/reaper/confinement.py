"""Restriction of the files to which the reaper, its script and the script's children may write.

Otherwise CAP_DAC_OVERRIDE, which is required to delete cgroups, would give the reaper access to all files of the host.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from supervisor.linux.capabilities import (
    ON_FILES,
    TRUNCATE_VERSION,
    drop_inheritable,
    landlock_add_rule,
    landlock_create_ruleset,
    landlock_restrict_self,
    landlock_version,
    writing,
)
from supervisor.log.logger import log, notice
from workers.reaper.accounting.spool import FOLDER_MODE
from workers.reaper.options import HostError, Options

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/tty")


def confine(options: Options) -> None:
    """Give up writing to all other files. Call it before threads exist, which it would not restrict. Raises HostError.

    Programs of the script get no capabilities, so they cannot delete cgroups.
    """
    drop_inheritable()
    try:
        version = landlock_version()
    except OSError as error:
        notice("cannot restrict what the reaper and its script write to: no Landlock: %s", error.strerror)
        return
    if version < TRUNCATE_VERSION:
        notice("cannot keep the reaper and its script from emptying files: Landlock of this kernel cannot, before 6.2")
    rights = writing(version)
    try:
        ruleset = landlock_create_ruleset(rights)
        try:
            for path in _writable(options):
                _allow(ruleset, path, rights)
            landlock_restrict_self(ruleset)
        finally:
            os.close(ruleset)
    except OSError as error:
        raise HostError(f"cannot restrict what the reaper writes to: {error.strerror}") from error


def _writable(options: Options) -> Iterator[str]:
    yield options.cgroup_root
    yield from DEVICES
    yield from options.script_writes
    kind, _, path = options.database.partition(":")
    if kind:
        with suppress(OSError):  # the spool itself reports what is wrong
            os.mkdir(options.spool, FOLDER_MODE)
        yield options.spool
    if kind == "sqlite":
        folder = os.path.dirname(path)
        os.environ.setdefault("SQLITE_TMPDIR", folder)  # for sorting, because /tmp is not writable
        yield folder


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if path not in DEVICES:
            log.warning("the reaper cannot write to %r: %s", path, error.strerror)
        return
    try:
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        landlock_add_rule(ruleset, fd, rights if is_folder else rights & ON_FILES)
    finally:
        os.close(fd)
