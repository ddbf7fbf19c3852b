"""Programs that prepare a process and start another one: chpst, setuidgid, softlimit, envdir and the like."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field

from importer.runit.script import NotSimple

_LIMITS = {
    "a": ("as",), "c": ("core",), "d": ("data",), "f": ("fsize",), "l": ("memlock",), "o": ("nofile",), "p": ("nproc",),
    "r": ("rss",), "s": ("stack",), "t": ("cpu",), "m": ("data", "stack", "memlock", "as"),
}  # fmt: skip
_CHPST_LIMITS = "mdfcopt"
_LARGEST = 1 << 16  # bytes of a variable
_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(slots=True)
class Prepared:
    """Identity, limits and environment of a program; `words` are its name and arguments."""

    words: list[str]
    base: str  # folder of relative paths
    user: str = ""
    groups: list[str] = field(default_factory=list)  # the first one is `group`
    argv0: str = ""
    folder: str = ""
    chroot: str = ""
    nice: int | None = None
    limits: dict[str, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    from_files: bool = False

    def number(self, text: str) -> int:
        if re.fullmatch(r"-?\d{1,15}", text) is None:
            raise NotSimple(f"{text!r} is no number")
        return int(text)

    def set_user(self, text: str) -> None:
        numeric = text.startswith(":")
        user, *groups = text.removeprefix(":").split(":")
        if not user or (numeric and not all(part.isdecimal() for part in (user, *groups))):
            raise NotSimple(f"{text!r} is no user")
        self.user, self.groups = user, groups

    def read_folder(self, text: str) -> None:
        """Take variables from a folder with a file for each. Raises NotSimple, also for files that are secret."""
        folder = os.path.join(self.base, text)
        try:
            for name in sorted(os.listdir(folder)):
                self._read(os.path.join(folder, name), name)
        except OSError as error:
            raise NotSimple(f"cannot read {folder!r}: {error.strerror}") from None
        self.from_files = True

    def _read(self, path: str, name: str) -> None:
        if name.startswith("."):
            return
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST or _NAME.fullmatch(name) is None:
            raise NotSimple(f"{path!r} is no variable")
        if not status.st_mode & stat.S_IROTH:
            raise NotSimple(f"not everybody may read {path!r}, which would be in the definition")
        with open(path, "rb") as file:
            line = file.read().split(b"\n", 1)[0].rstrip(b" \t").replace(b"\0", b"\n")
        if status.st_size:
            self.environment[name] = line.decode(errors="surrogateescape")
        else:
            self.environment.pop(name, None)


def unwrap(words: list[str], base: str) -> Prepared:
    """Return the program behind all wrappers. Raises NotSimple for an option that has no equivalent."""
    prepared = Prepared(list(words), base)
    while prepared.words:
        wrapper = _WRAPPERS.get(os.path.basename(prepared.words[0]))
        if wrapper is None:
            return prepared
        del prepared.words[0]
        wrapper(prepared)
    raise NotSimple("it does not exec a program")


def _options(prepared: Prepared, with_value: str, without: str) -> list[tuple[str, str]]:
    """Take options from the words, as getopt(3) does."""
    found: list[tuple[str, str]] = []
    words = prepared.words
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)[1:]
        if word == "-":
            break
        while word:
            letter, word = word[0], word[1:]
            if letter in without:
                found.append((letter, ""))
            elif letter in with_value and (word or words):
                found.append((letter, word or words.pop(0)))
                word = ""
            else:
                raise NotSimple(f"there is no equivalent of the option -{letter}")
    return found


def _chpst(prepared: Prepared) -> None:
    for letter, value in _options(prepared, "uUbe/Cn" + _CHPST_LIMITS, "vP012"):
        match letter:
            case "u":
                prepared.set_user(value)
            case "b":
                prepared.argv0 = value
            case "e":
                prepared.read_folder(value)
            case "/":
                prepared.chroot = value
            case "C":
                prepared.folder = value
            case "n":
                prepared.nice = prepared.number(value)
            case "v" | "P":
                pass  # every service has a session of its own
            case _ if letter in _CHPST_LIMITS:
                _limit(prepared, letter, value)
            case _:
                raise NotSimple(f"there is no equivalent of the option -{letter}")


def _softlimit(prepared: Prepared) -> None:
    for letter, value in _options(prepared, "".join(_LIMITS), ""):
        _limit(prepared, letter, value)


def _limit(prepared: Prepared, letter: str, value: str) -> None:
    for name in _LIMITS[letter]:
        prepared.limits[name] = prepared.number(value)


def _setuidgid(prepared: Prepared) -> None:
    prepared.set_user(_next(prepared))


def _envdir(prepared: Prepared) -> None:
    prepared.read_folder(_next(prepared))


def _env(prepared: Prepared) -> None:
    while prepared.words and "=" in prepared.words[0]:
        name, _, value = prepared.words.pop(0).partition("=")
        prepared.environment[name] = value
    if prepared.words[:1] and prepared.words[0].startswith("-"):
        raise NotSimple("env has options")


def _nice(prepared: Prepared) -> None:
    values = [value for _, value in _options(prepared, "n", "")]
    prepared.nice = prepared.number(values[-1]) if values else 10


def _nothing(prepared: Prepared) -> None:
    """Every service has a session of its own."""


def _next(prepared: Prepared) -> str:
    if not prepared.words:
        raise NotSimple("it does not exec a program")
    return prepared.words.pop(0)


_WRAPPERS: dict[str, Callable[[Prepared], None]] = {
    "chpst": _chpst,
    "softlimit": _softlimit,
    "setuidgid": _setuidgid,
    "envdir": _envdir,
    "env": _env,
    "nice": _nice,
    "pgrphack": _nothing,
}
