"""Text as a terminal shows it: its width, lines of a given width, and tables."""

from __future__ import annotations

from supervisor.printable import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Paint = Callable[[int, int, str], str]  # row, column and the padded cell: the cell in colour

ELLIPSIS = "…"
NARROWEST = 20  # columns that a text is wrapped to, however narrow the terminal is
GAP = "  "  # between the columns of a table
RIGHT = ">"
LEFT = "<"


def width(text: str) -> int:
    """Return the columns that a text takes up."""
    return len(text) if text.isascii() else sum(map(_width, text))


def cut(text: str, columns: int) -> str:
    """Return at most so many columns of a text, with an ellipsis at the end where there is more."""
    if width(text) <= columns:
        return text
    kept, room = "", columns - 1
    for char in text:
        room -= _width(char)
        if room < 0:
            break
        kept += char
    return kept + ELLIPSIS if columns > 0 else ""


def wrap(text: str, columns: int | None, before: int = 0) -> list[str]:
    """Return the text in lines of so many columns (None: one line), broken at blanks where there are some.

    The caller fills the first `before` columns of each line itself.
    """
    room = None if columns is None else max(columns - before, NARROWEST)
    if room is None or width(text) <= room:
        return [text]
    lines, rest = [], text
    while width(rest) > room:
        line = _begin(rest, room)
        blank = line.rfind(" ") if not rest[len(line) :].startswith(" ") else len(line)
        line = rest[:blank].rstrip() or line if blank > 0 else line
        lines.append(line)
        rest = rest[len(line) :].lstrip()
    return [*lines, rest] if rest else lines


def _begin(text: str, columns: int) -> str:
    """Return the beginning of a text that has room, at least one character."""
    for index, char in enumerate(text):
        columns -= _width(char)
        if columns < 0:
            return text[: max(index, 1)]
    return text


def _width(char: str) -> int:
    from unicodedata import combining, east_asian_width  # not needed for most output

    if combining(char):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


# tables


def render(
    titles: Sequence[str],
    aligns: str,
    rows: Sequence[Sequence[str]],
    columns: int | None = None,
    paint: Paint | None = None,
) -> list[str]:
    """Return the lines of a table, the titles first, each column as wide as its widest cell.

    `aligns` has a `<` or `>` for each column.  Lines are cut to `columns` (None: never).  Only cells of `rows` are
    painted.
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
    """Return as many cells as there is room for, at least one, the last of them cut."""
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
