from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.definitions import scalars
from supervisor.definitions.problems import InvalidValue

BITS = st.integers(0, 0o777)


@given(BITS)
def test_both_notations_are_the_same(bits: int) -> None:
    assert scalars.umask(scalars.show_permissions(bits)) == bits
    assert scalars.umask(f"{bits:03o}") == bits
    assert scalars.umask(f"{bits:04o}") == bits
    assert scalars.permissions(scalars.show_permissions(bits)) == bits


@given(BITS, st.integers(0, 8), st.characters())
def test_only_its_own_letter_fits_a_place(bits: int, place: int, letter: str) -> None:
    shown = scalars.show_permissions(bits)
    text = shown[:place] + letter + shown[place + 1 :]
    if letter in ("rwxrwxrwx"[place], "-"):
        assert scalars.umask(text) == bits & ~(0o400 >> place) | (0 if letter == "-" else 0o400 >> place)
    else:
        with pytest.raises(InvalidValue, match="are not permissions"):
            scalars.umask(text)


@given(st.one_of(st.integers(), st.floats()))
def test_a_number_is_refused_with_the_reason(number: float) -> None:
    with pytest.raises(InvalidValue, match="Lua reads as decimal"):
        scalars.umask(number)


@pytest.mark.parametrize(("text", "bits"), [("---rwxrwx", 0o077), ("----w--w-", 0o022), ("022", 0o022), ("0", 0)])
def test_known(text: str, bits: int) -> None:
    assert scalars.umask(text) == bits


@pytest.mark.parametrize("value", ["", "8", "01777", "00022", "---rwxrw", "---rwxrwx-", True, None, [], {}])
def test_bad(value: object) -> None:
    with pytest.raises(InvalidValue):
        scalars.umask(value)
