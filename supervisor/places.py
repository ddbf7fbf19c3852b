"""Where things are on this host: configuration, run-time folder, control socket, Lua files that ship, cgroup v2."""

from __future__ import annotations

import os

SYSCONFDIR = "/etc"  # `make install SYSCONFDIR=…` writes this line

SYSTEM_FOLDER = "/run/spawnd"
CONTROL = "control"
OWNER_SUFFIX = ".owner"
RULE = "$RUNTIME_DIRECTORY, /run/spawnd for root, $XDG_RUNTIME_DIR/spawnd or /tmp/spawnd-UID for other users"

_HERE = os.path.dirname(os.path.abspath(__file__))
_LUA_FOLDERS = (os.path.join(_HERE, "lua"), os.path.join(_HERE, "..", "lua"))  # installed; in the source tree


def default_folder() -> str:
    """Return the run-time folder of a spawnd started by this user; `$RUNTIME_DIRECTORY` wins (systemd.exec(5))."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if given:
        return given
    if os.geteuid() == 0:
        return SYSTEM_FOLDER
    session = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(session, "spawnd") if session else _temporary_folder()


def default_socket() -> str:
    """Return the control socket that this user most likely means: that of an own spawnd, or else the system's."""
    *own, system = default_sockets()
    for path in own:
        if _is_ours(os.path.dirname(path)) and os.path.exists(path):
            return path
    return system


def default_sockets() -> list[str]:
    """Return the places where `default_socket` looks, the system's last."""
    folders = [SYSTEM_FOLDER]
    if os.geteuid() != 0:
        session = os.environ.get("XDG_RUNTIME_DIR")
        folders = [*([os.path.join(session, "spawnd")] if session else []), _temporary_folder(), SYSTEM_FOLDER]
    return [os.path.join(folder, CONTROL) for folder in folders]


def owner_socket(path: str) -> str:
    """Return the socket beside the control socket at `path` to which only the user of spawnd can connect."""
    return f"{path}{OWNER_SUFFIX}"


def _temporary_folder() -> str:
    return f"/tmp/spawnd-{os.geteuid()}"  # noqa: S108  (its user checks owner and mode)


def _is_ours(folder: str) -> bool:
    """Whether the folder belongs to this user: in /tmp any user could have made a folder with that name."""
    try:
        return os.lstat(folder).st_uid == os.geteuid()
    except OSError:
        return False


def lua_file(name: str) -> bytes:
    """Return the text of an installed Lua file. Raises FileNotFoundError."""
    for folder in _LUA_FOLDERS:
        try:
            with open(os.path.join(folder, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            continue
    raise FileNotFoundError(f"cannot find the Lua file {name!r} that belongs to this program")


def cgroup2_mounts() -> dict[str, str]:
    """Return the mount points of cgroup2, each with the cgroup that is its root. Raises OSError."""
    found = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            before, _, after = line.partition(" - ")
            if after.startswith("cgroup2 "):
                root, point = before.split()[3:5]
                found[_unescape(point)] = _unescape(root)
    return found


def _unescape(field: str) -> str:
    """Decode blank, tab, newline and backslash, which are octal in mountinfo."""
    for escape, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(escape, char)
    return field
