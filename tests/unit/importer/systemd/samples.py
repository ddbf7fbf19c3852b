"""Samples of units: texts with a part for each file, and with the definitions that they become."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "samples"
PART = "=== "
LINK = " -> "
EXPECTED = "expected "


def parts(path: Path) -> dict[str, str]:
    """Return the parts of a sample by their headings."""
    found: dict[str, str] = {}
    for part in ("\n" + path.read_text(encoding="utf-8")).split(f"\n{PART}")[1:]:
        name, _newline, text = part.partition("\n")
        found[name] = text.strip("\n") + "\n"
    return found


def write_units(path: Path, folder: Path) -> list[str]:
    """Write the units of a sample into a folder; return the folder as the paths to be converted."""
    for name, text in parts(path).items():
        if name.startswith(EXPECTED):
            continue
        link, arrow, target = name.partition(LINK)
        file = folder / link
        file.parent.mkdir(exist_ok=True)
        if arrow:
            file.symlink_to(target)
        else:
            file.write_text(text, encoding="utf-8")
    return [str(folder)]


def expected(path: Path) -> dict[str, str]:
    """Return the definition files that a sample becomes."""
    return {name.removeprefix(EXPECTED): text for name, text in parts(path).items() if name.startswith(EXPECTED)}
