#!/usr/bin/env python3
"""As much of `docker` as the cookbook uses: the entry point of an image as process 1, with what it copies.

`build` reads a Dockerfile and runs none of its RUN lines: the programs of the image are those of this host, whose /etc
is copied.  `run`, `exec` and `stop` do the same as docker.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# Arguments: a folder for the copy of /etc, then the command.  COPIES are lines of source and target.
INSIDE = """
set -e
cp -a /etc "$1/etc"
mount --bind "$1/etc" /etc
mount -t tmpfs none /run
echo "$COPIES" | while read -r source target; do
    mkdir -p "$target"
    cp -R "$source/." "$target/"
done
shift
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""
PATIENCE = 30.0  # seconds for a process to begin or to end


def build(state: Path, tag: str, folder: Path) -> None:
    """Note what the last stage of the Dockerfile copies and executes."""
    lines = (folder / "Dockerfile").read_text().splitlines()
    words = list(enumerate(line.split() for line in lines))
    copied = [(number, line[1], line[2]) for number, line in words if line[:1] == ["COPY"] and len(line) == 3]
    for _, source, _ in copied:
        assert (folder / source).exists(), f"Dockerfile: there is no {source}"
    last = max(number for number, line in words if line[:1] == ["FROM"])
    own = [f"{folder / source} {target}" for number, source, target in copied if number > last]
    (entry,) = [json.loads(line.partition(" ")[2]) for line in lines[last:] if line.startswith("ENTRYPOINT ")]
    (state / f"{tag}.image").write_text(json.dumps({"copies": own, "entry": entry}))
    print(f"sha256:{tag}")


def run(state: Path, name: str, tag: str) -> None:
    image = json.loads((state / f"{tag}.image").read_text())
    root = state / name
    root.mkdir()
    with (root / "log").open("wb") as log:
        outer = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", INSIDE, "sh", root, *image["entry"]],
            env={**os.environ, "COPIES": "\n".join(image["copies"])}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + PATIENCE
    while not (children := Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()):
        assert time.monotonic() < deadline, "no process 1"
        time.sleep(0.05)
    (root / "pid").write_text(children[0])
    print(name)


def execute(state: Path, name: str, command: list[str]) -> int:
    pid = (state / name / "pid").read_text()
    return subprocess.call(["nsenter", "--target", pid, "--mount", "--net", "--pid", *command])


def stop(state: Path, name: str) -> None:
    """End process 1 with TERM.  Raises AssertionError where it does not end."""
    pid = int((state / name / "pid").read_text())
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "process 1 does not end"
        time.sleep(0.05)
    os.close(handle)
    print(name)


def main(state: Path, verb: str, *rest: str) -> int:
    state.mkdir(exist_ok=True)
    match verb, rest:
        case "build", ["-q", "-t", tag, folder]:
            build(state, tag, Path(folder).resolve())
        case "run", ["-d", "--name", name, tag]:
            run(state, name, tag)
        case "exec", [name, *command]:
            return execute(state, name, command)
        case "stop", ["-t", _, name]:
            stop(state, name)
        case _:
            raise ValueError(f"docker {verb} {rest}: not here")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
