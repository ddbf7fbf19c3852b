"""`inetd.lua` as it ships, but for its ports, folders and users: each service is asked by its usual client."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.daemon import Daemon, children, wait_until
from tests.integration.conftest import new_folder, telling
from tests.integration.examples.program import SHIPPED
from tests.integration.examples.tftp_client import DATA, TftpClient
from tests.integration.test_demand import port
from tests.ports import free_port
from tests.unit.definitions.test_inetd import TEXT, rows

PLACE = "/usr/share/spawn-supervisor/examples"
# The users that an operator makes, and others that every Debian has.
USERS = {"gitdaemon": "games", "rsyncd": "news", "fingerd": "irc"}
SERVICES = ("git", "rsync", "finger", "tftp")
PORTS = {"git": 9418, "rsync": 873, "finger": 79, "tftp": 69, "ssh": 22}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: the services have users of their own")


def needs(program: str, package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not Path(program).exists(), reason=f"needs Debian's package {package}")


def make_repository(folder: Path) -> None:
    """Make `folder/repository.git` with one file, for the git daemon to export."""
    work, bare = folder / "work", folder / "repository.git"
    work.mkdir(parents=True)
    (work / "hello.txt").write_text("Hello from git\n")
    author = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    for command in (("init", "-q"), ("add", "."), (*author, "commit", "-qm", "First")):
        run("git", *command, cwd=work)
    run("git", "clone", "-q", "--bare", str(work), str(bare))
    (bare / "git-daemon-export-ok").touch()


def run(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    environment = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": "/dev/null", **(env or {})}
    result = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False, env=environment,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.returncode == 0, (command, result.stdout, result.stderr)
    return result.stdout


class Inetd:
    """The example under a spawnd, with the port that each service has here."""

    def __init__(self, folder: Path, services: tuple[str, ...] = SERVICES) -> None:
        self.folder = folder
        self.examples = folder / "examples"
        shutil.copytree(SHIPPED, self.examples)
        run("chmod", "-R", "a+rX", str(self.examples))
        text = (self.examples / "inetd.lua").read_text()
        self.ports: dict[str, int] = {}
        text = re.sub(r"--\[\[\n(.*?)\]\]", r"\1", text, flags=re.DOTALL)
        head, *entries = re.split(r"^(?=[a-z]+ = \{$)", text, flags=re.MULTILINE)
        chosen = [entry for entry in entries if entry.partition(" ")[0] in services]
        self.definitions = head.replace(PLACE, str(self.examples)) + "".join(self._placed(entry) for entry in chosen)

    def _placed(self, entry: str) -> str:
        name = entry.partition(" ")[0]
        entry = entry.replace("/srv/", f"{self.folder}/srv/")
        found = re.search(r'(?:tcp|udp)\("(?:\*|0\.0\.0\.0)", (\d+)\)', entry)
        if found is not None:
            assert int(found[1]) == PORTS[name]
            self.ports[name] = free_port()
            entry = entry.replace(found[0], f'{found[0][:3]}("127.0.0.1", {self.ports[name]})')
        for user, other in USERS.items():
            entry = entry.replace(f'"{user}"', f'"{other}"')
        return entry


def is_root_locked() -> bool:
    """Whether root has no way to log in, not even by a key: sshd without PAM looks at that."""
    try:
        rows = Path("/etc/shadow").read_text().splitlines()
    except OSError:
        return True
    return any(row.startswith("root:!") for row in rows)


@pytest.fixture(scope="module")
def inetd_of_all() -> Iterator[tuple[Inetd, Daemon]]:
    with new_folder() as folder:
        yield from _inetd(folder)


def _inetd(folder: Path) -> Iterator[tuple[Inetd, Daemon]]:
    names = [name for name in SERVICES if name != "tftp" or Path("/usr/sbin/in.tftpd").exists()]
    inetd = Inetd(folder, tuple(names))
    make_repository(folder / "srv" / "git")
    shutil.copytree(SHIPPED / "tftpboot", folder / "srv" / "tftp")
    (folder / "srv" / "tftp" / "large").write_bytes(bytes(range(256)) * 400)
    (folder / "srv" / "pub").mkdir()
    (folder / "srv" / "pub" / "hello.txt").write_text("Hello from rsync\n")
    configuration = inetd.examples / "rsyncd.conf"
    configuration.write_text(configuration.read_text().replace("/srv/", f"{folder}/srv/"))
    run("chmod", "-R", "a+rX", str(folder / "srv"))
    with Daemon(folder, inetd.definitions) as daemon:
        for name in names:
            daemon.wait_state(name, "asleep")
        yield inetd, daemon


@pytest.fixture
def inetd(inetd_of_all: tuple[Inetd, Daemon]) -> Iterator[Inetd]:
    inetd, daemon = inetd_of_all
    with telling(daemon):
        yield inetd


@pytest.fixture
def daemon(inetd_of_all: tuple[Inetd, Daemon]) -> Daemon:
    return inetd_of_all[1]


def test_a_clone_by_git(inetd: Inetd, tmp_path: Path) -> None:
    address = f"git://127.0.0.1:{inetd.ports['git']}"
    run("git", "clone", "-q", f"{address}/repository.git", str(tmp_path / "clone"))
    assert (tmp_path / "clone" / "hello.txt").read_text() == "Hello from git\n"


def test_git_tells_of_no_repository_that_is_not_exported(inetd: Inetd) -> None:
    export = inetd.folder / "srv" / "git" / "repository.git" / "git-daemon-export-ok"
    export.rename(export.with_suffix(".not"))
    try:
        command = ["git", "ls-remote", f"git://127.0.0.1:{inetd.ports['git']}/repository.git"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        export.with_suffix(".not").rename(export)
    assert result.returncode != 0
    assert "access denied or repository not exported" in result.stderr


@needs("/usr/bin/rsync", "rsync")
def test_files_by_rsync(inetd: Inetd, tmp_path: Path) -> None:
    address = f"rsync://127.0.0.1:{inetd.ports['rsync']}"
    assert run("rsync", f"{address}/").split() == ["pub", "public", "files"]
    run("rsync", "-a", f"{address}/pub/", str(tmp_path))
    assert (tmp_path / "hello.txt").read_text() == "Hello from rsync\n"
    command = ["rsync", str(tmp_path / "hello.txt"), f"{address}/pub/other.txt"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode != 0
    assert "read only" in result.stderr


def finger(inetd: Inetd, query: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", inetd.ports["finger"]), timeout=60) as client:
        client.sendall(query)
        return b"".join(iter(lambda: client.recv(1000), b""))


def test_names_by_nc(inetd: Inetd, daemon: Daemon) -> None:
    command = ["nc", "-w", "10", "127.0.0.1", str(inetd.ports["finger"])]
    result = subprocess.run(command, input="printer\n", capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == (SHIPPED / "plans" / "printer").read_text()
    daemon.wait_log("printer: for 127.0.0.1")


@pytest.mark.parametrize("query", [b"\r\n", b"/W\r\n", b"\n"])
def test_finger_lists_the_names(inetd: Inetd, query: bytes) -> None:
    assert finger(inetd, query).split() == [b"operator", b"printer"]


@pytest.mark.parametrize("query", [b"/W printer\r\n", b"printer\r\n", b"printer\n"])
def test_finger_tells_a_file(inetd: Inetd, query: bytes) -> None:
    assert finger(inetd, query) == (SHIPPED / "plans" / "printer").read_bytes().replace(b"\n", b"\r\n")


@pytest.mark.parametrize("query", [b"../finger", b"/etc/passwd", b"printer@example.org", b"$(id)", b"*", b"nobody"])
def test_finger_tells_no_other_file(inetd: Inetd, query: bytes) -> None:
    assert finger(inetd, query + b"\r\n") == b"No such name.\r\n"


def test_finger_serves_four_clients_of_an_address_at_a_time(inetd: Inetd, daemon: Daemon) -> None:
    with ExitStack() as stack:
        address = ("127.0.0.1", inetd.ports["finger"])
        silent = [stack.enter_context(socket.create_connection(address, timeout=60)) for _ in range(4)]
        assert finger(inetd, b"") == b""
        assert "by per_source" in daemon.ctl("status", "finger").stdout
        assert [client.recv(100) for client in silent] == [b""] * 4  # the end of session_timeout
    assert finger(inetd, b"printer\r\n")


def test_a_query_that_never_ends_takes_no_more_than_its_limits(inetd: Inetd, daemon: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", inetd.ports["finger"]), timeout=60) as client:

        def is_cut() -> bool:
            try:
                client.sendall(b"x" * 65536)
            except OSError:
                return True
            return False

        wait_until(is_cut, "the end of the session")
    assert finger(inetd, b"printer\r\n")


@needs("/usr/bin/tftp", "tftp-hpa")
@needs("/usr/sbin/in.tftpd", "tftpd-hpa")
def test_files_by_tftp(inetd: Inetd, daemon: Daemon, tmp_path: Path) -> None:
    port = str(inetd.ports["tftp"])
    run("tftp", "-m", "binary", "127.0.0.1", port, "-c", "get", "hello.txt", cwd=tmp_path)
    assert (tmp_path / "hello.txt").read_bytes() == (SHIPPED / "tftpboot" / "hello.txt").read_bytes()


@needs("/usr/sbin/in.tftpd", "tftpd-hpa")
def test_tftp_gives_no_other_files(inetd: Inetd) -> None:
    client = TftpClient(("127.0.0.1", inetd.ports["tftp"]))
    try:
        client.request(b"../../examples/inetd.lua")
        assert client.error()[0] in (1, 2)  # no such file, or a violation
    finally:
        client.close()


def privileges(pid: int) -> tuple[list[str], int]:
    """The uids of a process, and its capabilities as bits."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return sorted(set(fields["Uid"].split())), int(fields["CapPrm"], 16)


@needs("/usr/sbin/in.tftpd", "tftpd-hpa")
def test_a_transfer_outlasts_the_process_that_took_its_request(inetd: Inetd, daemon: Daemon) -> None:
    client = TftpClient(("127.0.0.1", inetd.ports["tftp"]))
    try:
        client.request(b"large")
        opcode, block, first = client.receive()
        assert (opcode, block) == (DATA, 1)
        server = daemon.wait_running("tftp")
        assert privileges(server) == (["0"], 1 << 6 | 1 << 7 | 1 << 18)  # CAP_SETGID, CAP_SETUID, CAP_SYS_CHROOT
        [transfer] = children(server)
        assert privileges(transfer) == ([str(pwd.getpwnam("tftp").pw_uid)], 0)
        daemon.ctl("sleep", "tftp")
        daemon.wait_state("tftp", "asleep")
        client.ack(1)
        assert first + client.download(first=2) == bytes(range(256)) * 400
    finally:
        client.close()


def _can_have_a_run_folder() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/run"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@needs("/usr/sbin/sshd", "openssh-server")
@pytest.mark.skipif(is_root_locked(), reason="needs a root that may log in")
def test_a_command_by_ssh(tmp_path: Path) -> None:
    """A login of root, by keys of the test: sshd with the folder that its dependency makes, in a /run of its own."""
    if not _can_have_a_run_folder():
        pytest.skip("needs a mount namespace")
    with new_folder() as folder:
        for name in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name))
        inetd = Inetd(folder, ("ssh", "sshdir"))
        (tmp_path / "sshd_config").write_text(
            f"HostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\n"
        )
        options = f'"-i", "-e", "-f", "{tmp_path}/sshd_config"'
        assert '"-i", "-e"' in inetd.definitions
        port = inetd.ports["ssh"]
        (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {(tmp_path / 'host.pub').read_text()}")
        daemon = Daemon(folder, inetd.definitions.replace('"-i", "-e"', options))
        daemon.prefix = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run && exec "$@"', "sh"]
        ssh = ["ssh", "-F", "none", "-i", str(tmp_path / "user"), "-o", f"UserKnownHostsFile={tmp_path}/known"]
        with daemon:
            assert (daemon.state("ssh"), daemon.state("sshdir")) == ("asleep", "stopped")
            told = run(*ssh, "-p", str(port), "root@127.0.0.1", "echo $SSH_CONNECTION; umask; id -u")
            connection, umask, uid = told.split("\n")[:3]
            assert connection.endswith(f"127.0.0.1 {port}")
            assert (umask, uid) == ("0022", "0")
            daemon.wait_log("Accepted publickey for root from 127.0.0.1")


# by the name of a service inside xinetd: what a client sends, and what it gets
ANSWERS = {"echo": (b"abc", b"abc"), "discard": (b"abc", b""), "chargen": (b"", b"y\n"), "daytime": (b"", b"20")}


@pytest.fixture(scope="module")
def internal_of_all() -> Iterator[Daemon]:
    programs = {name: rest for [name], rest in rows("Services inside xinetd") if "exec = " in rest}
    assert programs.keys() == ANSWERS.keys()
    old = re.search(r'exec = "/bin/sh", arg = \{\s+"-c", "exec /usr/local/bin/old 2>&1" \}', TEXT)
    assert old is not None
    programs["old"] = old[0].replace("/usr/local/bin/old", "/bin/ls /nothing")
    more = 'accept = true, fd = { tcp("127.0.0.1", 0) }, stderr = log()'
    with new_folder() as folder:
        texts = [f"{name} = {{ {program.strip('`')}, {more} }}\n" for name, program in programs.items()]
        with Daemon(folder, "".join(texts)) as daemon:
            for name in programs:
                daemon.wait_state(name, "asleep")
            yield daemon


@pytest.mark.parametrize("name", ANSWERS)
def test_a_program_instead_of_a_service_inside_xinetd(internal_of_all: Daemon, name: str) -> None:
    sent, answer = ANSWERS[name]
    with socket.create_connection(("127.0.0.1", port(internal_of_all, name)), timeout=60) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        told = client.recv(100)
    assert answer in told if answer else told == b""


def test_error_messages_for_the_client(internal_of_all: Daemon) -> None:
    with socket.create_connection(("127.0.0.1", port(internal_of_all, "old")), timeout=60) as client:
        assert b"No such file or directory" in b"".join(iter(lambda: client.recv(1000), b""))
