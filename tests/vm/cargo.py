"""The archive that a machine unpacks at its first start: this checkout's tests, and its orders."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tests.vm.guest import orders
from tests.vm.guest.orders import Orders

ROOT = Path(__file__).parents[2]
RUN_FILES = Path(__file__).parent / "files" / "run"
NOT_INSIDE = {"tests/vm/conftest.py"}
CHECKOUT = ("tests", "conf", "setup.cfg")
INSIDE = "opt/checks"


def write_cargo(path: Path, given: Orders) -> None:
    with tarfile.open(path, "w") as archive:
        for name in CHECKOUT:
            archive.add(ROOT / name, f"{INSIDE}/{name}", filter=_without_waste)
        archive.add(RUN_FILES, ".", filter=_without_waste)
        member = tarfile.TarInfo(str(orders.PATH.relative_to("/")))
        data = given.to_json().encode()
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))


def _without_waste(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = member.name.removeprefix(f"{INSIDE}/")
    if name in NOT_INSIDE or name.endswith("/__pycache__"):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
