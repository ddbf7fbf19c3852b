"""The definition files as they are when somebody asks: one evaluation at a time, for all who asked before it began."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from supervisor.definitions.service import Definitions
from supervisor.errors import DefinitionsError
from supervisor.loop.loop import Loop
from supervisor.manager.evaluation import Done, Evaluation
from supervisor.process.children import Children


class Evaluations:
    """`paths` are the definition files and folders."""

    def __init__(self, loop: Loop, children: Children, paths: Sequence[str]) -> None:
        self._loop = loop
        self._children = children
        self._paths = paths
        self._asked: list[Done] = []
        self._told: list[Done] = []
        self._quiet: Callable[[], None] | None = None

    def ask(self, done: Done) -> None:
        """Have `done` called with what the files say now, or what is wrong with them; once for who asks again."""
        if done not in self._asked:
            self._asked.append(done)
            self._next()

    def is_awaited_by(self, done: Done) -> bool:
        """Whether this one has asked, and the evaluation has not ended."""
        return done in self._asked or done in self._told

    def hold(self, quiet: Callable[[], None]) -> None:
        """Begin no other evaluation, until `release`; call back when all who were asked for have been told."""
        self._quiet = quiet
        self._tell_quiet()

    def release(self) -> None:
        """Go on, with what was asked for meanwhile."""
        self._quiet = None
        self._next()

    def _tell_quiet(self) -> None:
        if self._quiet is not None and not self._told:
            self._loop.call_soon(self._quiet)  # after those who are told in turns before this one

    def _next(self) -> None:
        if self._told or not self._asked or self._quiet is not None:
            return
        self._told, self._asked = self._asked, []
        try:
            Evaluation(self._loop, self._children, self._paths, self._tell, digest=True)
        except OSError as error:
            failure = DefinitionsError([f"cannot evaluate definitions: {error.strerror}"])
            self._loop.call_soon(partial(self._tell, failure))

    def _tell(self, result: Definitions | DefinitionsError) -> None:
        """Each in a turn of its own, so that no mistake of one is another's."""
        told, self._told = self._told, []
        for done in told:
            self._loop.call_soon(partial(done, result))
        self._tell_quiet()
        self._next()
