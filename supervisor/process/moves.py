"""In which order descriptors get to their numbers, so that none is overwritten that is still needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

SPARE = -1  # some number that is free


def moves(sources: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """The copies, as (from, to), after which each number in `sources` has what was on its source before.

    One spare number is all that they take beyond those in `sources`: with twice as many, a service could not
    be given more descriptors than half its limit.  What already is in its place is left out.
    """
    pending = {target: source for target, source in sources.items() if target != source}
    readers = Counter(pending.values())
    free = [target for target in pending if target not in readers]
    while pending:
        if not free:  # all that is left are cycles
            target = next(iter(pending))
            yield target, SPARE
            reader = target
            while pending[reader] != target:
                reader = pending[reader]
            pending[reader] = SPARE
            free.append(target)
        while free:
            target = free.pop()
            source = pending.pop(target)
            yield source, target
            readers[source] -= 1
            if source in pending and not readers[source]:
                free.append(source)
