"""Mount points of cgroup v2, from proc_pid_mountinfo(5)."""

from __future__ import annotations


def mount_points() -> dict[str, str]:
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
