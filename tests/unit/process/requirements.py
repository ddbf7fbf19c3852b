"""Requirements of tests on the machine, with the reason that a skipped test prints."""

from __future__ import annotations

import os
import shutil
import socket

import pytest


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: changes users, mounts, namespaces or cgroups")
needs_ip = pytest.mark.skipif(shutil.which("ip") is None, reason="needs ip of iproute2 to make network namespaces")
needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="needs IPv6 on the loopback device")
