"""The setup script, run as `ip netns exec` would: inside, with the mounts that make `/sys` and `/etc` fit.

The mount namespace is private, so nothing of it is seen outside.  Runs in an errand, which
becomes the script.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from supervisor.linux.mount import MNT_DETACH, MS_BIND, MS_REC, MS_SLAVE, mount, umount2
from supervisor.linux.namespaces import CLONE_NEWNET, CLONE_NEWNS, setns, unshare
from supervisor.log.logger import log
from workers.netns.errors import SetUpError
from workers.netns.name import open_namespace
from workers.netns.plan import read_plan
from workers.netns.resolver import FOLDER

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run_script(options: dict[str, Any], path: str) -> NoReturn:
    """Become the script, with the name of the link inside as its argument.  Raises OSError, SetUpError.

    What it writes to either output goes to the output of the service.
    """
    plan = read_plan(options)
    namespace = open_namespace(plan.name)
    if namespace is None:
        raise SetUpError(f"cannot run {path}: there is no network namespace {plan.name!r} any more")
    setns(namespace, CLONE_NEWNET)
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_SLAVE | MS_REC)
    umount2("/sys", MNT_DETACH)
    mount(plan.name, "/sys", "sysfs")
    _bind_files(plan.name)
    os.dup2(1, 2)
    os.chdir("/")
    os.umask(0o022)
    try:
        os.execve(path, [path, plan.inside], {"PATH": PATH, "NETNS": plan.name, "LINK": plan.link})  # noqa: S606
    except OSError as error:
        raise SetUpError(f"cannot run {path}: {error.strerror}") from error


def _bind_files(name: str) -> None:
    """Also where one has no counterpart the others count, as with `ip netns exec`; the log says so."""
    folder = f"{FOLDER}/{name}"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for file in names:
        source, target = f"{folder}/{file}", f"/etc/{file}"
        try:
            mount(source, target, flags=MS_BIND)
        except OSError as error:
            log.warning("netns@%s: cannot bind %s over %s: %s", name, source, target, error.strerror)
