"""Saving the memory of modules: rarely used ones are executed at the first use, used ones are dropped."""

from __future__ import annotations

import gc
import sys
from types import ModuleType


class Deferred(ModuleType):
    """A module that is neither searched nor executed yet.

    `importlib.util.LazyLoader` does not work here: in Python 3.11 a second `import` of such a module executes it.
    """

    def __getattr__(self, name: str) -> object:
        from importlib.machinery import PathFinder  # takes longer to import than everything here

        spec = PathFinder.find_spec(self.__name__)
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"no module named {self.__name__!r}", name=self.__name__)
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin
        self.__class__ = ModuleType  # type: ignore[assignment]  # like LazyLoader
        try:
            spec.loader.exec_module(self)
        except BaseException:
            self.__class__ = Deferred  # perhaps for lack of descriptors: the next use tries again
            raise
        return getattr(self, name)


def defer(name: str) -> None:
    """Have a module executed at the first use of its content; an imported module stays as it is."""
    sys.modules.setdefault(name, Deferred(name))


def forget(*names: str) -> None:
    """Drop modules after their last use: the next imports reuse their memory."""
    for name in names:
        sys.modules.pop(name, None)
    gc.collect()
