"""The cgroup that a handler is given: what was measured, its extended attributes and its parents.

A handle is a number that is never used again, so that an object that a script has kept beyond
its handler is known to be stale.  Parents are opened with `..`, which finds them also where they
have been deleted meanwhile: an open folder holds on to those above it.
"""

from __future__ import annotations

import itertools
import os
from errno import EACCES, EINVAL, ENODATA, EOPNOTSUPP, EPERM, ERANGE

from workers.lua.errors import Fault
from workers.lua.released import Released
from workers.lua.state import Functions, Value

_MEASURED = frozenset(Released.__dataclass_fields__) - {"path", "fd", "btime"}
_STALE = "Stale object"
# absent, not permitted, or no name that there can be, xattr(7)
_NO_XATTR = (ENODATA, EPERM, EACCES, EOPNOTSUPP, EINVAL, ERANGE)


class _Cgroup:
    __slots__ = ("fd", "measured", "parent", "path")

    def __init__(self, path: str, fd: int, measured: Released | None) -> None:
        self.path = path
        self.fd = fd
        self.measured = measured  # None for a parent, whose `fd` is ours
        self.parent: int | None = None


class Cgroups:
    """Owns the descriptors of parents; a released cgroup's own is its maker's."""

    name = "cgroup"
    waiting: Functions = {}

    def __init__(self) -> None:
        self._handles = itertools.count(1)
        self._cgroups: dict[int, _Cgroup] = {}
        self.functions: Functions = {
            "get": self._get,
            "parent": self._parent,
            "xattr": self._xattr,
        }

    def admit(self, released: Released) -> int:
        """A handle for a released cgroup, good until it is retired."""
        return self._add(_Cgroup(released.path, released.fd, released))

    def retire(self, handle: int) -> None:
        """From now on the objects of that handle, and of the parents, are stale."""
        cgroup = self._cgroups.pop(handle)
        if cgroup.measured is None:
            os.close(cgroup.fd)
        if cgroup.parent is not None:
            self.retire(cgroup.parent)

    def close(self) -> None:
        for handle, cgroup in list(self._cgroups.items()):
            if cgroup.measured is not None:
                self.retire(handle)

    def _add(self, cgroup: _Cgroup) -> int:
        handle = next(self._handles)
        self._cgroups[handle] = cgroup
        return handle

    def _find(self, handle: int) -> _Cgroup:
        try:
            return self._cgroups[handle]
        except KeyError:
            raise Fault(_STALE) from None

    def _get(self, handle: int, name: bytes) -> Value:
        cgroup = self._find(handle)
        if name == b"path":
            return cgroup.path
        if cgroup.measured is None:
            return None
        if name == b"btime":  # whole seconds, as a Lua timestamp is
            return None if cgroup.measured.btime is None else int(cgroup.measured.btime)
        key = name.decode(errors="replace")
        return getattr(cgroup.measured, key) if key in _MEASURED else None

    def _parent(self, handle: int) -> int | None:
        cgroup = self._find(handle)
        above = cgroup.path.rpartition("/")[0]
        if cgroup.parent is None and above:
            try:
                fd = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=cgroup.fd)
            except OSError as error:  # nil would say that there is none
                raise Fault(f"cannot open the parent of {cgroup.path}: {error.strerror}") from error
            cgroup.parent = self._add(_Cgroup(above, fd, None))
        return cgroup.parent

    def _xattr(self, handle: int, name: bytes) -> bytes | None:
        """An attribute; without a dot in its name it is one of `user.`."""
        cgroup = self._find(handle)
        if b"." not in name:
            name = b"user." + name
        if b"\0" in name:
            return None
        try:
            return os.getxattr(f"/proc/self/fd/{cgroup.fd}", name)  # by path because of O_PATH, see open(2)
        except OSError as error:
            if error.errno in _NO_XATTR:
                return None
            raise Fault(f"cannot read {os.fsdecode(name)!r} of {cgroup.path}: {error.strerror}") from error
