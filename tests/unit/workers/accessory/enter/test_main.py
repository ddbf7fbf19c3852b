from __future__ import annotations

import os
import sys

import pytest

from tests.unit.process.forked import in_child
from tests.unit.process.requirements import needs_root
from workers.accessory.client import Namespaces
from workers.accessory.enter import main as module
from workers.accessory.enter.command import CANNOT_ENTER
from workers.accessory.new_namespaces import NamespaceMaker


@needs_root
def test_a_namespace_that_ends_before_it_is_entered(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    maker = NamespaceMaker()
    init = maker.make_pid("ends")
    init.kill()
    init.wait()
    monkeypatch.setattr(module, "_ask", lambda _arguments: Namespaces(pid=os.dup(init.fd)))
    monkeypatch.setattr(sys, "argv", ["spawn-enter", "--pid", "ends", "--", "true"])
    assert in_child(module.main) == CANNOT_ENTER
    assert "cannot start a process in the namespaces" in capfd.readouterr().err
    init.close()
    maker.close()
