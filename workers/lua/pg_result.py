"""What the server answers, in the form that Lua takes it in.

A script may keep a result as long as it likes, and may read only a part of it.  So the whole of it
becomes two strings of Lua, which its collector knows the size of, and the Lua part takes them apart row by
row: the names of the columns first, then all values.
"""

from __future__ import annotations

import struct

from psycopg.pq.abc import PGresult

NULL = 0xFFFFFFFF  # in the place of a length

Packed = tuple[int, int, bytes, bytes]  # columns, rows, the length of each string as little-endian u32, the strings


def pack(result: PGresult) -> Packed:
    columns, rows = result.nfields, result.ntuples
    cells: list[bytes | None] = [result.fname(column) or b"" for column in range(columns)]
    value = result.get_value
    cells += [value(row, column) for row in range(rows) for column in range(columns)]
    lengths = struct.pack(f"<{len(cells)}I", *(NULL if cell is None else len(cell) for cell in cells))
    return columns, rows, lengths, b"".join(cell for cell in cells if cell is not None)
