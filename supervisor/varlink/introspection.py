"""`org.varlink.service`: what every Varlink service says of itself."""

from __future__ import annotations

import os

from supervisor import __version__

SERVICE = "org.varlink.service"


def info(product: str, interfaces: list[str]) -> dict[str, object]:
    """The reply to GetInfo of one of this project's services."""
    return {
        "vendor": "spawn-supervisor",
        "product": product,
        "version": __version__,
        "url": "",
        "interfaces": interfaces,
    }


def service_description() -> str:
    """The definition of this very interface."""
    return read_description(os.path.dirname(__file__), SERVICE)


def read_description(folder: str, interface: str) -> str:
    """A definition, from the file that is installed with the code."""
    with open(os.path.join(folder, f"{interface}.varlink"), encoding="utf-8") as file:
        return file.read()
