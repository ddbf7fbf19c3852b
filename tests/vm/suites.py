"""The Debian releases that machines are made of, and the packages in them."""

from __future__ import annotations

SUITES = ("bookworm", "trixie")

# A server as it is usually run; beyond that what tests need: a network namespace (iproute2), clients, processes.
MACHINE_PACKAGES = (
    "linux-image-cloud-amd64",
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "procps",
    "iproute2",
    "netcat-openbsd",
    "python3",
)
