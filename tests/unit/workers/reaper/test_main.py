"""Messages of the worker to spawnd."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from supervisor.notify.service_side import Sender
from workers.reaper import main


def test_that_it_is_ready_is_said_until_somebody_hears_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "READY_PAUSE", 0.01)
    path = f"{tmp_path}/notify"

    async def run() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as spawnd:
            sender = Sender(path)
            telling = asyncio.create_task(main._tell_ready(sender))
            await asyncio.sleep(0.05)
            assert not telling.done()
            spawnd.bind(path)
            await telling
            assert spawnd.recv(100) == b"READY=1"
            sender.close()

    asyncio.run(run())


def test_without_anybody_to_hear_it() -> None:
    asyncio.run(main._tell_ready(Sender("")))
