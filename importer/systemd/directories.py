"""RuntimeDirectory and its kin: made by the function `start`, removed by `stop`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from importer.systemd import values
from importer.systemd.commands import NO_FUNCTIONS
from importer.systemd.conversion import Conversion, Shape
from importer.systemd.unit_file import Entry
from importer.systemd.values import ValueNotUnderstood
from importer.systemd.words import texts
from importer.values import value_text

# key: the folder that they are in, and the variable that names them to the program
PLACES = {
    "RuntimeDirectory": ("/run", "RUNTIME_DIRECTORY"),
    "StateDirectory": ("/var/lib", "STATE_DIRECTORY"),
    "CacheDirectory": ("/var/cache", "CACHE_DIRECTORY"),
    "LogsDirectory": ("/var/log", "LOGS_DIRECTORY"),
    "ConfigurationDirectory": ("/etc", "CONFIGURATION_DIRECTORY"),
}


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory of a service; `is_owned`: it belongs to the user of the service."""

    path: str
    mode: str
    is_owned: bool = True
    is_removed: bool = False


def directories(conversion: Conversion, entries: Sequence[Entry]) -> list[Folder]:
    """Return the directories that a directive asks for, and name them in the environment."""
    key = entries[0].key
    if conversion.shape is Shape.SESSIONS:
        conversion.left_out(entries, f"{NO_FUNCTIONS}; tmpfiles.d(5) makes directories")
        return []
    top, variable = PLACES[key]
    mode = values.mode(conversion.unit.value("Service", f"{key}Mode", "0755"))
    preserve = conversion.unit.value("Service", "RuntimeDirectoryPreserve", "no")
    names = [word for entry in entries for word in texts(conversion.unit.expand(entry.value))]
    found = []
    for name in names:
        path, *link = name.split(":")
        if link and any(link):
            raise ValueNotUnderstood("links to directories have no equivalent")
        if path.startswith("/") or ".." in path.split("/") or not path:
            raise ValueNotUnderstood(f"{path!r} is not a path below {top}")
        is_removed = key == "RuntimeDirectory" and values.is_off(preserve)
        found.append(Folder(f"{top}/{path}", mode, key != "ConfigurationDirectory", is_removed))
    conversion.carried(entries, "in the function start")
    known = conversion.definition.keys.get("env")
    env = dict(known) if isinstance(known, dict) else {}
    env.setdefault(variable, ":".join(folder.path for folder in found))
    conversion.definition.set("env", env)
    return found


def making(folders: Sequence[Folder], user: str, group: str) -> list[str]:
    """Return Lua that makes the directories."""
    lines = []
    for folder in folders:
        path = value_text(folder.path)
        lines.append(f'assert(fsys.mkdir({path}, {{ mode = "{folder.mode}", parents = true }}))')
        if folder.is_owned and (user, group) != ("root", "root"):
            lines.append(f"assert(fsys.chown({path}, {value_text(user)}, {value_text(group)}))")
    return lines


def removing(folders: Sequence[Folder]) -> list[str]:
    """Return Lua that removes those that are to be removed; a missing one is no failure."""
    removed = [folder.path for folder in folders if folder.is_removed]
    return [f"fsys.remove({value_text(path)}, {{ recursive = true }})" for path in removed]
