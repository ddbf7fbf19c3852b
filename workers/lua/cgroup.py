"""The cgroup for a handler: its measurements, its extended attributes and its parents.

A handle is a number that is never reused, so that an object kept by a script beyond its handler is known to
be stale. Parents are opened with `..`, which finds them even if they have been deleted meanwhile: an open
folder keeps those above it alive.
"""

from __future__ import annotations

import itertools
import os
from errno import EACCES, EINVAL, ENODATA, EOPNOTSUPP, EPERM, ERANGE

from workers.lua.libraries import Context
from workers.lua.released import LEFT_OUT, Released
from workers.lua.state import Fault, Functions, Value

_STALE = "Stale object"
# absent, not permitted, or an impossible name, xattr(7)
_NO_XATTR = (ENODATA, EPERM, EACCES, EOPNOTSUPP, EINVAL, ERANGE)


class _Cgroup:
    __slots__ = ("fd", "left_out", "measured", "parent", "path")

    def __init__(self, path: str, fd: int, measured: Released | None, left_out: int | None) -> None:
        self.path = path
        self.left_out = left_out
        self.fd = fd
        self.measured = measured  # None for a parent, whose `fd` belongs to this module
        self.parent: int | None = None


class Cgroups:
    """Owns the descriptors of parents; the maker of a released cgroup owns that of the cgroup."""

    name = "cgroup"
    waiting: Functions = {}

    def __init__(self, _context: Context) -> None:
        self._handles = itertools.count(1)
        self._cgroups: dict[int, _Cgroup] = {}
        self.functions: Functions = {
            "get": self._get,
            "parent": self._parent,
            "xattr": self._xattr,
        }

    def admit(self, released: Released) -> int:
        """Return a handle for a released cgroup, valid until it is retired."""
        return self._add(_Cgroup(released.path, released.fd, released, released.left_out))

    def retire(self, handle: int) -> None:
        """Make the objects of a handle and those of its parents stale."""
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
        if name == b"btime":  # whole seconds, like a Lua timestamp
            return None if cgroup.measured.btime is None else int(cgroup.measured.btime)
        if name == b"age":
            return cgroup.measured.age
        return cgroup.measured.counted.get(name.decode(errors="replace"))

    def _parent(self, handle: int) -> int | None:
        cgroup = self._find(handle)
        above, left_out = _above(cgroup.path, cgroup.left_out)
        if cgroup.parent is None and above:
            try:
                fd = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=cgroup.fd)
            except OSError as error:  # nil would mean that there is none
                raise Fault(f"cannot open the parent of {cgroup.path}: {error.strerror}") from error
            cgroup.parent = self._add(_Cgroup(above, fd, None, left_out))
        return cgroup.parent

    def _xattr(self, handle: int, name: bytes) -> bytes | None:
        """Return an extended attribute; a name without a dot is in the namespace `user.`."""
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


def _above(path: str, left_out: int | None) -> tuple[str, int | None]:
    """Return the path of the cgroup above, and the number of names omitted from it."""
    if left_out is None:
        return path.rpartition("/")[0], None
    start = path.rpartition(LEFT_OUT)[0]
    return (f"{start}{LEFT_OUT}", left_out - 1) if left_out else (start, None)
