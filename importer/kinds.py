"""The kinds of configurations that can be converted, each by a module that is imported when it is needed."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from importer.result import Result

    Convert = Callable[[Sequence[str]], Result]

# name of the kind: the module, whose `convert` takes the paths of the command line, and what these are
KINDS = {
    "circus": ("importer.circus.convert", "files like circus.ini"),
    "daemontools": ("importer.runit.convert", "service directories, or folders of them"),
    "inetd": ("importer.inetd.convert", "files like /etc/inetd.conf"),
    "procfile": ("importer.procfile.convert", "files like Procfile, or folders with one"),
    "runit": ("importer.runit.convert", "service directories, or folders of them"),
    "supervisord": ("importer.supervisord.convert", "files like supervisord.conf"),
    "systemd": ("importer.systemd.convert", "unit files, or folders with them"),
    "xinetd": ("importer.xinetd.convert", "files like /etc/xinetd.conf, or folders with them"),
}


def load(kind: str) -> Convert:
    """Return the function that converts the paths of a kind."""
    convert: Convert = import_module(KINDS[kind][0]).convert
    return convert
