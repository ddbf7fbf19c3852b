"""The evaluation with which spawnd starts, where the host has no room for it."""

from __future__ import annotations

import resource

from supervisor.definitions.service import Definitions
from supervisor.errors import DefinitionsError
from supervisor.loop.loop import Loop
from supervisor.main import _evaluate
from supervisor.process.children import Children
from tests.unit.process.forked import in_child
from tests.unit.waiting import run_until


def test_a_child_that_cannot_be_forked_is_a_problem_that_passes() -> None:
    """Without a problem there would be no supervisor: with one, services go on by the definitions that they had."""

    def check() -> tuple[bool, list[str]]:
        results: list[Definitions | DefinitionsError] = []
        loop = Loop(on_error=lambda error: None)
        children = Children(lambda pid, exit: None)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        cancel = _evaluate(loop, children, ["/nowhere"], results.append)
        run_until(loop, lambda: results)
        cancel()
        (result,) = results
        assert isinstance(result, DefinitionsError)
        return result.passing, result.problems

    assert in_child(check) == (True, ["cannot evaluate the definitions: Too many open files"])
