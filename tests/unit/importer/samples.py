"""Samples of configurations with what becomes of them, as `samples.txt` of a kind has them.

A sample begins with `=== NAME`, has files, each behind `>>> NAME`, and behind `<<<` the result: definition files, each
behind a comment with its name, and errors. The first file, or else those behind `=== NAME: `, is what is converted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from importer.checked import check
from importer.kinds import load
from importer.lua_text import file_text

FOLDER = "/etc/sample"  # stands for the folder of a sample's files, in these and in the result
_SAMPLE = re.compile(r"^=== ", re.M)


@dataclass(slots=True)
class Sample:
    name: str
    paths: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    result: str = ""

    def write(self, folder: Path) -> list[str]:
        """Write the files, and return the paths to be converted."""
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(FOLDER, str(folder)), errors="surrogatepass")
        return [str(folder / name) for name in self.paths or list(self.files)[:1]]


def read_samples(path: Path) -> dict[str, Sample]:
    """Return the samples of a file by name."""
    samples: dict[str, Sample] = {}
    for text in _SAMPLE.split(path.read_text())[1:]:
        head, _, rest = text.partition("\n")
        name, _, paths = head.partition(": ")
        source, _, result = rest.partition("<<<\n")
        sample = Sample(name, paths.split(), result=result.rstrip("\n") + "\n")
        for part in source.split(">>> ")[1:]:
            file, _, content = part.partition("\n")
            sample.files[file] = content
        assert name not in samples, name
        samples[name] = sample
    return samples


def converted(kind: str, sample: Sample, folder: Path) -> str:
    """Return the result of a sample as its file has it. The definitions pass the check, users apart."""
    result = load(kind)(sample.write(folder))
    texts = {file.name: file_text(file) for file in result.files}
    assert len(texts) == len(result.files), "two files with one name"
    if any(file.definitions for file in result.files):
        assert check(texts).problems == []
    lines = [*(f"-- {name}\n{text}" for name, text in texts.items()), *(f"error: {error}" for error in result.errors)]
    return "\n".join(lines).rstrip("\n").replace(str(folder), FOLDER) + "\n"
