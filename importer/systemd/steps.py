"""Commands as steps of the functions of a module, in Lua."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from importer.systemd.words import Command
from importer.values import value_text

PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_VARIABLE = re.compile(r"\$\$|\$\{[A-Za-z_][A-Za-z0-9_]*\}|[\"\\`$]")


def found_program(program: str) -> tuple[str, str]:
    """Return the absolute path of a program, and a remark if that is a guess."""
    if program.startswith("/"):
        return program, ""
    for folder in PATH:
        path = os.path.join(folder, program)
        if "/" not in program and os.access(path, os.X_OK):
            return path, f"found as {path}"
    return f"/usr/bin/{program.rpartition('/')[2]}", "not found on this host, so its folder is a guess"


@dataclass(frozen=True, slots=True)
class Step:
    """A command that a function runs; `as_anyone`: as the user that the function has."""

    command: Command
    as_anyone: bool = False

    @property
    def needs_root(self) -> bool:
        return self.command.as_root

    def line(self, lower_to: tuple[str, str] | None) -> str:
        """Return Lua that runs the command; `lower_to` are a user and a group for a function that is root."""
        command = self.command
        words = [found_program(command.program)[0], *command.arguments]
        if command.expands:
            words = ["/bin/sh", "-c", f"exec {' '.join(map(_shell_word, words))}"]
        elif ":" not in command.prefixes:
            words = [word.replace("$$", "$") for word in words]
        if lower_to and not command.as_root and not self.as_anyone:
            user, group = lower_to
            words = ["/usr/bin/setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups", *words]
        run = f"proc.run({', '.join(map(value_text, words))})"
        return run if command.may_fail else f"assert({run})"


def _shell_word(word: str) -> str:
    """Return a word for a shell, in which variables are expanded as systemd does it."""
    if re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", word):
        return word  # it becomes any number of words
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", word):
        return word
    text = _VARIABLE.sub(lambda found: found[0] if len(found[0]) > 2 else f"\\{found[0][-1]}", word)
    return f'"{text}"'
