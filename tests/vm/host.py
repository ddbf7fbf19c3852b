"""This host's means for machines, and the part of its configuration that their building follows."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs"}
# How packages are fetched, as opposed to what is done with them.
FETCHING = re.compile(r"Acquire::(https?|ftp|Retries|Check-Valid-Until|Check-Date|ForceIPv[46]|AllowInsecure\w*)\b")
PIP_CONFIGURATION = (Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf")
NETWORK = (Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/ssl/certs/ca-certificates.crt"))
PASSED_ON = re.compile(r"PIP_\w+|(https?|ftp|all|no)_proxy|SSL_CERT_FILE", re.IGNORECASE)


def reason_without() -> str | None:
    """Why machines cannot be had here, or None."""
    if os.geteuid() != 0:
        return "needs root: makes root file systems"
    if platform.machine() != "x86_64":
        return f"needs an x86_64 host: this is {platform.machine()}"
    missing = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return f"needs {', '.join(missing)} of Debian" if missing else None


def has_kvm() -> bool:
    """KVM that runs an ordinary kernel.

    It takes a processor that helps: there is a KVM without, for kernels made for it, whose device opens just as well.
    """
    flags = set(re.findall(r"\b(?:vmx|svm)\b", Path("/proc/cpuinfo").read_text()))
    return bool(flags) and os.access("/dev/kvm", os.R_OK | os.W_OK)


def apt_options() -> list[str]:
    """`Name "value"` of this host's apt, of those that tell how to fetch."""
    lines = _output("apt-config", "dump").splitlines()
    return [line.rstrip(";") for line in lines if FETCHING.match(line) and not line.endswith(' "";')]


def apt_sources(suite: str) -> list[str]:
    """Lines of sources.list for `suite`: where this host's own Debian suite comes from, its updates too.

    Empty where that is not known, which leaves it to mmdebstrap's defaults.
    """
    own = _os_release().get("VERSION_CODENAME", "")
    targets = _output(
        "apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)|$(CODENAME)|$(COMPONENT)", "Created-By: Packages"
    )
    found = []
    for line in targets.splitlines():
        origin, uri, codename, component = line.split("|")
        if origin == "Debian" and component == "main" and own and codename.partition("-")[0] == own:
            found.append(f"deb {uri} {codename.replace(own, suite, 1)} main")
    main = [line for line in found if f" {suite} " in line]
    return list(dict.fromkeys(found)) if main else []


def environment() -> dict[str, str]:
    """Of a command in another root: nothing of this host but how to reach the package index."""
    passed_on = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    fixed = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8", "TERM": "dumb"}
    return {**passed_on, **fixed, "PIP_ROOT_USER_ACTION": "ignore", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def copy_network_configuration(root: Path) -> None:
    """So that pip works in another root as it does in this one, but for packages in folders of this host."""
    for path in (*PIP_CONFIGURATION, *NETWORK):
        if path.is_file():
            inside = Path("/root") / path.relative_to(Path.home()) if path.is_relative_to(Path.home()) else path
            target = root / inside.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # it may be a link to anywhere
            shutil.copyfile(path, target)


def _os_release() -> dict[str, str]:
    return platform.freedesktop_os_release()


def _output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
