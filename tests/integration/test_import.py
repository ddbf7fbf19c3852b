"""Units that are imported run as they say, under a real spawnd."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.daemon import BIN, PATIENCE, Daemon
from tests.integration.conftest import new_folder
from tests.ports import free_port

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has services of other users")
UNITS = {
    "prepare.service": """
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/mkdir @/out/made
ExecStart=-/bin/false
ExecStart=/bin/touch "@/out/made/one two"
ExecStop=/bin/touch @/out/undone
[Install]
WantedBy=multi-user.target
""",
    "app.service": """
[Unit]
Requires=prepare.service
After=prepare.service
ConditionPathExists=@/out/made
[Service]
User=daemon
RuntimeDirectory=NAME
Environment=TIME=300 "WORDS=a b"
ExecStartPre=/bin/sh -c 'id -un > /run/NAME/user; echo $$0 $$1 >> /run/NAME/user' $WORDS
ExecStartPre=+/bin/touch /run/NAME/of-root
ExecStart=/bin/sleep ${TIME}
[Install]
WantedBy=multi-user.target
""",
    "hello.socket": "[Socket]\nListenStream=127.0.0.1:PORT\nAccept=yes\n[Install]\nWantedBy=sockets.target\n",
    "hello@.service": "[Service]\nUser=daemon\nStandardInput=socket\nExecStart=/bin/echo hello $REMOTE_ADDR\n",
}


def test_steps_directories_users_and_sockets_are_those_of_the_units() -> None:
    name, port = f"spawnd-test-import-{os.getpid()}", free_port()
    runtime = Path("/run", name)
    with new_folder() as folder:
        units, imported = folder / "units", folder / "imported"
        units.mkdir()
        for unit, text in UNITS.items():
            (units / unit).write_text(text.replace("@/", f"{folder}/").replace("NAME", name).replace("PORT", str(port)))
        command = (BIN / "spawnctl", "import", "systemd", units, "--out", imported, "--check")
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with Daemon(folder, "-- all are in the other folder\n", "--config", str(imported)) as daemon:
            daemon.wait_running("app")
            assert daemon.state("prepare") == "running"
            assert {path.name for path in (folder / "out" / "made").iterdir()} == {"one two"}
            assert (runtime / "user").read_text() == "daemon\na b\n"
            assert (runtime / "user").owner() == "daemon"
            assert (runtime / "of-root").owner() == "root"
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                assert client.makefile().read() == "hello 127.0.0.1\n"
            assert daemon.stop() == 0
        assert (folder / "out" / "undone").exists()
        assert not runtime.exists()
