"""Sentences of docstrings, comments and pages name their subject: few begin with What, Who or One that."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPENERS = re.compile(
    r"[\W_]*(?:Wh(?:at|o|om|ose|atever|oever)|One (?:that|who)|Of (?:one|those|what)|Those (?:who|that))\b"
)
BAR = 0.01
# a comment, or a string, in which a # begins none
TOKEN = re.compile(
    r"""(?P<comment>\#.*) | r?(?P<quotes>"{3}|'{3}|"|') (?:\\[\s\S] | (?!(?P=quotes))[^\\])* (?P=quotes)""", re.VERBOSE
)
LINE_END = re.compile(r"[ \t]*(?:#|$)", re.MULTILINE)
SENTENCE_ENDS = re.compile(r"(?<=[.!?])[)\"'*`]*\s+|\n\s*\n")


def sentences(text: str) -> list[str]:
    return [found for part in SENTENCE_ENDS.split(text) if (found := " ".join(part.split())) and " " in found]


def page_texts(path: Path) -> Iterator[str]:
    """Yield the paragraphs, items and cells of a page, without its examples."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^#+ (.*)$", r"\1\n", text, flags=re.MULTILINE)
    text = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", text, flags=re.MULTILINE)
    for block in text.split("\n\n"):
        if block.lstrip().startswith("|"):
            yield from (cell for line in block.split("\n") for cell in line.strip().strip("|").split("|"))
        else:
            yield block


def source_texts(path: Path) -> Iterator[str]:
    """Yield the docstrings and the comments of a file; comments on lines of their own are one where they touch."""
    source = path.read_text(encoding="utf-8")
    code = ":"  # a module begins with its docstring, as a block does
    block: list[str] = []
    end, goes_on = 0, False
    for token in TOKEN.finditer(source):
        between = source[end : token.start()]
        is_own_line = not source[source.rfind("\n", 0, token.start()) + 1 : token.start()].strip()
        if token["comment"]:
            if not (is_own_line and goes_on and between.count("\n") == 1):
                yield " ".join(block)
                block = []
            block.append(token["comment"].lstrip("# "))
            code = between.strip() or code
        else:
            if is_own_line and (between.strip() or code).endswith(":") and LINE_END.match(source, token.end()):
                yield ast.literal_eval(token[0])
            code = token[0]
        end, goes_on = token.end(), is_own_line and bool(token["comment"])
    yield " ".join(block)


def texts() -> Iterator[tuple[Path, str]]:
    for page in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))):
        if page.name != "CHANGELOG.md":
            yield from ((page, text) for text in page_texts(page))
    for top in ("supervisor", "workers", "importer", "tests"):
        for file in sorted((ROOT / top).rglob("*.py")):
            yield from ((file, text) for text in source_texts(file))


def nameless(text: str) -> list[str]:
    """Return the sentences that begin with a pronoun where their subject should be; questions are none."""
    return [found for found in sentences(text) if OPENERS.match(found) and not found.rstrip("*`\"')").endswith("?")]


def test_few_sentences_begin_without_a_noun() -> None:
    found = [(path.relative_to(ROOT), text) for path, text in texts() if text]
    total = sum(len(sentences(text)) for _, text in found)
    wrong = [f"{path}: {line}" for path, text in found for line in nameless(text)]
    assert total > 5000
    assert len(wrong) < BAR * total, f"{len(wrong)} of {total} sentences have no noun:\n" + "\n".join(wrong)


def test_docstrings_and_comments_are_found(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        '''#!/bin/x\n"""A module, "quoted" # so"""\nx = {"a": "# no comment",\n "b":\n  "no docstring"}  # 1\n'''
        '''# 2\n# 3\ndef f(\n    y: str = "\\"#",\n) -> None:  # 4\n    r"""A\n    \\function."""\n\n'''
        '''    # 5\n    """no docstring"""\n'''
    )
    found = {" ".join(text.split()) for text in source_texts(path) if text}
    assert found == {"!/bin/x", 'A module, "quoted" # so', "1", "2 3", "4", "A \\function.", "5"}


def test_the_openers_are_recognized() -> None:
    assert nameless("What dies waits. A service that dies waits. **Who may call**: root. One that fails, too.") == [
        "What dies waits.", "**Who may call**: root.", "One that fails, too.",
    ]  # fmt: skip
    assert nameless("Who may call? `What`: a name. Those whose end is near.") == ["`What`: a name."]
