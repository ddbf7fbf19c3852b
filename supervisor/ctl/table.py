"""A table whose columns are as wide as what is in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from supervisor.ctl.text import cut, printable, width

GAP = "  "
RIGHT = ">"
LEFT = "<"

Paint = Callable[[int, int, str], str]  # row, column and the padded cell: the cell in colour


def render(
    titles: Sequence[str],
    aligns: str,
    rows: Sequence[Sequence[str]],
    columns: int | None = None,
    paint: Paint | None = None,
) -> list[str]:
    """The lines, the titles first; `aligns` has a `<` or `>` for each column.

    Lines are cut to `columns` (None: never).  Only cells of `rows` are painted.
    """
    cells = [list(titles), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    lines = []
    for number, row in enumerate(cells):
        padded = [_pad(cell, wide, align) for cell, wide, align in zip(row, widths, aligns, strict=True)]
        shown = padded if columns is None else _fit(padded, columns)
        shown[-1] = shown[-1].rstrip()
        if paint is not None and number > 0:
            shown = [paint(number - 1, column, cell) for column, cell in enumerate(shown)]
        lines.append(GAP.join(shown).rstrip())
    return lines


def _pad(cell: str, columns: int, align: str) -> str:
    space = " " * (columns - width(cell))
    return space + cell if align == RIGHT else cell + space


def _fit(cells: list[str], columns: int) -> list[str]:
    """As many cells, the last of them cut, as there is room for; at least one."""
    shown: list[str] = []
    room = columns
    for cell in cells:
        if shown:
            room -= len(GAP)
        if room <= 0:
            break
        if width(cell.rstrip()) > room:
            shown.append(cut(cell.rstrip(), room))
            break
        shown.append(cell)
        room -= width(cell)
    return shown
