"""The order of copies, carried out on a table of numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.process.child_descriptors import SPARE, moves

NUMBERS = st.integers(0, 12)
TABLES = st.dictionaries(NUMBERS, NUMBERS) | st.permutations(range(10)).map(lambda order: dict(enumerate(order)))


@given(TABLES)
def test_every_number_has_what_was_on_its_source(sources: dict[int, int]) -> None:
    table = {number: f"was on {number}" for number in sources.values()}
    copies = list(moves(sources))
    for source, target in copies:
        assert (source == SPARE) or source != target
        table[target] = table.pop(SPARE) if source == SPARE else table[source]
    assert SPARE not in table
    assert {target: table[target] for target in sources} == {n: f"was on {source}" for n, source in sources.items()}
    assert len(copies) <= 2 * len(sources)


def test_what_is_in_its_place_stays() -> None:
    assert list(moves({3: 3, 4: 4})) == []


def test_a_cycle_takes_one_copy_more() -> None:
    assert len(list(moves({3: 4, 4: 5, 5: 3}))) == 4


def test_a_long_table_shifted_by_one() -> None:
    assert list(moves({n: n + 1 for n in range(20_000)})) == [(n + 1, n) for n in range(20_000)]
