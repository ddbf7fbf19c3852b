"""The whole way from the fork to a program: what it sees, and what is said where it fails."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prctl
import pytest

from supervisor.definitions.service import Descriptor
from supervisor.errors import StepError
from supervisor.linux.signal_mask import ignored
from supervisor.process import child
from supervisor.process.child import MOST, Main
from supervisor.process.fork import EXIT_CHILD_FAILED, fork
from supervisor.process.fork_server import SOCKET
from supervisor.process.held_descriptors import close_descriptor, open_descriptor
from supervisor.process.launch import Launch
from tests.unit.closing import PatientCloser
from tests.unit.process.forked import in_child, open_numbers, read_all
from tests.unit.process.launched import PYTHON, service, shell, start, told, view
from tests.unit.process.netns import network_namespace
from tests.unit.process.requirements import needs_ip, needs_root

TRUE = ("/bin/true",)


def exited(status: int) -> int:
    assert os.WIFEXITED(status)
    return os.WEXITSTATUS(status)


def test_nothing_but_what_was_asked_for() -> None:
    seen = view(service(), env={})
    assert set(seen["fds"]) == {"0", "1", "2"}
    assert seen["fds"]["0"] == "/dev/null"
    assert {key for key in seen["env"] if key != "LC_CTYPE"} == set(), "LC_CTYPE is Python's own"
    assert seen["cwd"] == "/"
    assert seen["status"]["Umask"] == "0077"
    assert seen["pid"] == seen["sid"] == seen["pgid"]


def test_a_file_that_the_child_opens_can_be_read_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    output = start(service(), ("/bin/sh", "-c", "cat <&3; echo x >&3 || echo; ls /proc/$$/fd"), fds=(
        ("a", str(tmp_path / "file")), ("b", "/dev/null")
    )).output  # fmt: skip
    assert output.startswith("text")
    assert output.endswith("0\n1\n2\n3\n4\n")
    assert (tmp_path / "file").read_text() == "text"


def test_the_name_of_the_program() -> None:
    script = "tr '\\0' ' ' < /proc/$$/cmdline"
    assert start(service(), ("/bin/sh", "-c", script), argv0="-name").output.startswith("-name -c ")
    command = ("/bin/sh", "-c", script.replace("$", "$$"))
    assert start(service(expand_env=True), command, argv0="$A", env={"A": "a"}).output.startswith("$A -c ")


def test_arguments() -> None:
    assert start(service(), ("/usr/bin/printf", "%s|", "a", "", "b c", "\u00e9")).output == "a||b c|\u00e9|"
    assert start(service(), ("/bin/sh", "-c", 'test "$1" = "$(printf "\\377")"', "sh", "\udcff")).status == 0


@pytest.mark.parametrize("below", [False, True])
def test_the_table(world: Path, below: bool) -> None:
    specs = [
        Descriptor("tcp", name="http", host="127.0.0.1"),
        Descriptor("file", name="log", path=str(world / "log"), access="a"),
        Descriptor("dgram", name="ctl", path=str(world / "ctl")),
    ]
    opened = [open_descriptor(spec) for spec in specs]
    sources = [entry.fd for entry in opened]
    if not below:  # where no source is in the way of the table
        sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 500) for fd in sources]
    before = open_numbers()
    names = [spec.name for spec in specs]
    seen = view(service(), fds=(*zip(names, sources, strict=True), ("null", "/dev/null")))
    assert open_numbers() == before
    for fd in {*sources, *(entry.fd for entry in opened)} - {opened[2].fd}:
        os.close(fd)
    close_descriptor(opened[2], PatientCloser())
    assert set(seen["fds"]) == {str(number) for number in range(7)}
    assert seen["fds"]["4"] == str(world / "log")
    assert seen["fds"]["6"] == "/dev/null"
    assert seen["env"]["LISTEN_FDNAMES"] == "http:log:ctl:null"
    assert seen["env"]["LISTEN_FDS"] == "4"
    assert seen["env"]["LISTEN_PID"] == str(seen["pid"])


def test_files_are_set_back_to_their_beginning(world: Path) -> None:
    (world / "f").write_text("quotes")
    fifo = os.open(os.devnull, os.O_RDONLY)
    fd = os.open(world / "f", os.O_RDONLY)
    os.read(fd, 3)
    fds = (("f", fd), ("null", fifo))
    assert shell(service(), "cat <&3", fds=fds) == "tes"
    assert shell(service(), "cat <&3", fds=fds, rewound=(3, 4)) == "quotes"
    os.close(fd)
    os.close(fifo)


def test_hundreds_of_descriptors() -> None:
    seen = view(service(), fds=tuple((f"n{number}", 0) for number in range(400)))
    assert len(seen["fds"]) == 403
    assert len(seen["env"]["LISTEN_FDNAMES"].split(":")) == 400


def test_with_stdin_stdout_and_stderr_closed_in_the_supervisor() -> None:
    def close_all() -> None:
        for number in (0, 1, 2):
            os.close(number)

    with socket.socket(socket.AF_UNIX) as sock:
        seen = view(service(), before=close_all, fds=(("s", sock.fileno()),))
    assert set(seen["fds"]) == {"0", "1", "2", "3"}
    assert seen["fds"]["0"] == "/dev/null"
    assert seen["fds"]["3"].startswith("socket:")


def test_the_ready_pipe() -> None:
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    output = shell(service(), "echo >&7; ls /proc/self/fd", ready=(7, write_end))
    os.close(write_end)
    assert os.read(read_end, 10) == b"\n"
    os.close(read_end)
    assert output.split()[:4] == ["0", "1", "2", "3"], "3 is that of ls itself"
    assert output.split()[4:] == ["7"]


def _ignore_all() -> None:
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(signum, signal.SIG_IGN)


def test_a_worker_has_default_signals_but_for_those_of_its_c_library() -> None:
    """The C library would end a process that it tells to change its user, for instance."""
    own = 1 << 31 | 1 << 32

    def look() -> list[int]:
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        return [int(status[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")]

    before = look()
    blocked, ignored, caught = told(service(), look, before=_ignore_all)
    python = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert (blocked, ignored & ~own, caught & ~own) == (0, python, 0)
    assert [ignored & own, caught & own] == [found & own for found in before[1:]]


def _handle_usr1() -> None:
    signal.signal(signal.SIGUSR1, lambda _signum, _frame: None)


@pytest.mark.parametrize(
    ("before", "changes"),
    [(_ignore_all, {}), (_handle_usr1, {"ignored": ignored()})],
    ids=["all are ignored", "some are ignored"],
)
def test_signals_are_default_and_unblocked(before: Callable[[], None], changes: dict[str, Any]) -> None:
    outcome = start(service(), ("/bin/cat", "/proc/self/status"), before=before, **changes)
    status = dict(line.split(":\t", 1) for line in outcome.output.splitlines())
    # 32 and 33 are the C library's own, which lets nobody set them: whoever started us may have them ignored
    own = 1 << 31 | 1 << 32
    assert {int(status[name], 16) & ~own for name in ("SigBlk", "SigIgn", "SigCgt")} == {0}


@needs_root
def test_what_a_program_sees(world: Path) -> None:
    (world / "here").mkdir(mode=0o755)
    path = world / "env"
    path.write_text("SECRET=s3cret\n")
    path.chmod(0o600)
    processor = max(os.sched_getaffinity(0))
    seen = view(
        service(
            uid=12,
            gid=13,
            gids=(14,),
            cwd=str(world / "here"),
            umask=0o022,
            env={"A": "1"},
            env_file=(str(path),),
            nice=5,
            cpu_affinity=(processor,),
            oom_score_adj=200,
            limits={"nofile": (50, 60), "core": (0, 0), "data": (1 << 30, 1 << 31), "stack": (1 << 20, 1 << 23)},
        ),
        notify_socket="/run/spawnd/notify",
        watchdog_usec=5,
    )
    assert (seen["uids"], seen["gids"], seen["groups"]) == ([12] * 3, [13] * 3, [14])
    assert (seen["cwd"], seen["status"]["Umask"]) == (str(world / "here"), "0022")
    assert (seen["nice"], seen["affinity"], seen["oom_score_adj"]) == (5, [processor], 200)
    assert seen["env"].items() >= {"A": "1", "SECRET": "s3cret", "WATCHDOG_USEC": "5"}.items()
    limits = seen["limits"]
    assert limits[resource.RLIMIT_NOFILE] == [50, 60]
    assert limits[resource.RLIMIT_CORE] == [0, 0]
    assert limits[resource.RLIMIT_DATA] == [1 << 30, 1 << 31]
    assert limits[resource.RLIMIT_STACK] == [1 << 20, 1 << 23]


def test_limits_that_no_python_could_live_under() -> None:
    limits = {"nofile": (4, 4), "data": (1 << 20, 1 << 20), "stack": (1 << 16, 1 << 16), "as": (1 << 23, 1 << 23)}
    output = shell(service(limits=limits), "ulimit -n; ulimit -d; ulimit -s; ulimit -v", env={})
    assert output.split() == ["4", "1024", "64", "8192"]


@pytest.mark.parametrize("limits", [{"as": (0, 0)}, {"data": (0, 0)}, {"as": (0, 0), "data": (0, 0)}])
def test_what_fails_without_memory_is_told(limits: dict[str, tuple[int, int]]) -> None:
    outcome = start(service(limits=limits), ("/nowhere/" + "x" * 200,))
    assert outcome.failed_step[:2] == ("exec", "/nowhere/" + "x" * 200)
    assert outcome.failed_step[2] in (errno.ENOENT, errno.ENOMEM)
    # more than what the process has of its own
    outcome = start(service(limits=limits, expand_env=True), ("/bin/true", "${A}"), env={"A": "x" * (100 << 10)})
    assert outcome.failed_step == ("exec", "/bin/true", errno.ENOMEM)
    assert outcome.failure is not None
    assert outcome.failure.cause == "the limits leave no memory for it"
    assert exited(outcome.status) == EXIT_CHILD_FAILED


def test_the_supervisors_own_limit_of_descriptors_is_not_passed_on() -> None:
    assert shell(service(), "ulimit -n; ulimit -Hn", nofile_soft=321).split()[0] == "321"


@needs_root
def test_chroot(world: Path) -> None:
    (world / "inside").mkdir()

    def load() -> Main:
        assert os.listdir("/") == ["inside"]
        assert os.getcwd() == "/inside"
        return lambda: 0

    assert start(service(chroot=str(world), cwd="/inside"), (), load=load).status == 0


@needs_root
@needs_ip
def test_network_namespace() -> None:
    with network_namespace() as name:
        inode = os.stat(f"/run/netns/{name}").st_ino
        assert view(service(netns=name))["netns"] == inode
    assert os.stat("/proc/self/ns/net").st_ino != inode


FAILURES: list[tuple[dict[str, Any], dict[str, Any], tuple[str, str, int]]] = [
    ({}, {"cgroup": "/nowhere"}, ("enter cgroup", "/nowhere/cgroup.procs", errno.ENOENT)),
    ({"netns": "nowhere"}, {}, ("enter network namespace", "/run/netns/nowhere", errno.ENOENT)),
    ({}, {"stdio": (9999, "/dev/null", "/dev/null")}, ("place stdin", "", errno.EBADF)),
    ({}, {"stdio": ("/dev/null", "/dev/null", 9999)}, ("place stderr", "", errno.EBADF)),
    ({}, {"stdio": ("/nowhere", "/dev/null", "/dev/null")}, ("open", "/nowhere", errno.ENOENT)),
    ({}, {"fds": (("a", "/etc"),)}, ("open", "/etc", errno.EINVAL)),
    ({}, {"fds": (("a", "/dev/zero"),)}, ("open", "/dev/zero", errno.EINVAL)),
    ({}, {"fds": (("a", PYTHON),)}, ("open", PYTHON, errno.EFBIG)),
    ({}, {"fds": (("a", 0), ("b", 9999))}, ("place descriptor 4", "", errno.EBADF)),
    ({}, {"ready": (2, 0)}, ("place the ready pipe", "", errno.EBUSY)),
    ({}, {"env_files": ("/nowhere",)}, ("read", "/nowhere", errno.ENOENT)),
    ({"limits": {"core": (2, 1)}}, {}, ("set limit core", "", errno.EINVAL)),
    ({"limits": {"nofile": (2, 1)}}, {}, ("set limit nofile", "", errno.EINVAL)),
    ({"cpu_affinity": (1000,)}, {}, ("set cpu_affinity", "", errno.EINVAL)),
    ({"oom_score_adj": 9999}, {}, ("write", "/proc/self/oom_score_adj", errno.EINVAL)),
    ({"cwd": "/nowhere"}, {}, ("change directory", "/nowhere", errno.ENOENT)),
    ({"cwd": "/etc/passwd"}, {}, ("change directory", "/etc/passwd", errno.ENOTDIR)),
    ({"capabilities": ("fly",)}, {}, ("keep capability fly", "", errno.EINVAL)),
]


@pytest.mark.parametrize("forked", [False, True])
@pytest.mark.parametrize(("keys", "changes", "error"), FAILURES)
def test_failures(keys: dict[str, Any], changes: dict[str, Any], error: tuple[str, str, int], forked: bool) -> None:
    before = open_numbers()
    outcome = start(service(**keys), TRUE, load=loader(lambda: 0) if forked else None, **changes)
    assert outcome.failed_step == error
    assert exited(outcome.status) == EXIT_CHILD_FAILED
    assert outcome.output == ""
    assert open_numbers() == before


@needs_root
def test_chroot_into_nothing() -> None:
    outcome = start(service(chroot="/nowhere"), TRUE)
    assert outcome.failed_step == ("chroot", "/nowhere", errno.ENOENT)


@needs_root
def test_niceness_without_the_capability() -> None:
    def give_up() -> None:
        prctl.capbset_drop(prctl.CAP_SYS_NICE)  # what is executed as root has what is in this set

    higher = os.nice(0) - 1  # in priority than this run of the tests
    assert start(service(nice=higher), TRUE, before=give_up).failed_step == ("set nice", "", errno.EACCES)


@needs_root
def test_an_ordinary_user_cannot_chroot(world: Path) -> None:
    outcome = start(service(chroot=str(world)), TRUE, before=lambda: os.setresuid(65534, 65534, 65534), is_root=False)
    assert outcome.failed_step == ("chroot", str(world), errno.EPERM)


@needs_root
def test_an_ordinary_user_stays_who_he_is() -> None:
    def become_twelve() -> None:
        os.setgroups([])
        os.setresgid(13, 13, 13)
        os.setresuid(12, 12, 12)

    assert view(service(), before=become_twelve, is_root=False)["uids"] == [12] * 3


@pytest.mark.parametrize(
    ("make", "number", "cause"),
    [
        (lambda path: None, errno.ENOENT, "No such file or directory"),
        (lambda path: path.write_text("#!/nowhere/interpreter\n"), errno.ENOENT, "names, '/nowhere/interpreter', does"),
        (lambda path: path.write_text("#! /nowhere/a -x\n"), errno.ENOENT, "names, '/nowhere/a', does not exist"),
        (lambda path: path.write_bytes(b"#!/bin/sh\r\nexit\r\n"), errno.ENOENT, "'/bin/sh\\r', does not exist: its"),
        (lambda path: path.write_text("echo\n"), errno.ENOEXEC, "Exec format error: its first line has to be like #!"),
        (lambda path: path.write_bytes(b"\x7fELF"), errno.ENOEXEC, "Exec format error"),
        (lambda path: path.mkdir(), errno.EACCES, "Permission denied"),
    ],
)
def test_exec(world: Path, make: Any, number: int, cause: str) -> None:
    path = world / "program"
    make(path)
    if path.exists():
        path.chmod(0o755)
    outcome = start(service(), (str(path),))
    assert outcome.failed_step == ("exec", str(path), number)
    assert outcome.failure is not None
    assert cause in outcome.failure.cause


def test_exec_of_a_command_line() -> None:
    outcome = start(service(), ("/bin/sleep 100",))
    assert outcome.failed_step == ("exec", "/bin/sleep 100", errno.ENOENT)
    assert outcome.failure is not None
    assert outcome.failure.cause == "No such file or directory, but '/bin/sleep' exists: arguments go into `arg`"


def test_exec_without_permission(world: Path) -> None:
    path = world / "program"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)
    assert start(service(), (str(path),)).failed_step == ("exec", str(path), errno.EACCES)


def test_an_environment_that_is_too_long() -> None:
    outcome = start(service(), TRUE, env={"A": "x" * (128 << 10)})
    assert outcome.failed_step == ("exec", "/bin/true", errno.E2BIG)


def test_whatever_else_goes_wrong_is_told() -> None:
    outcome = start(service(), ("/bin/true", "zero\0byte"))
    assert outcome.failure is not None
    assert str(outcome.failure) == "cannot set up: ValueError: embedded null byte"


def test_a_full_table_of_descriptors() -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 4096))

    outcome = start(service(), TRUE, before=no_room, fds=tuple((f"n{number}", 0) for number in range(100)))
    assert outcome.failed_step == ("place descriptor 103", "", errno.EMFILE)
    fds = tuple((f"n{number}", os.dup(0)) for number in range(50))
    outcome = start(service(), TRUE, before=no_room, fds=fds, stdio=(0, 0, 0))
    for _, fd in fds:
        os.close(fd)
    assert (outcome.failure, outcome.status) == (None, 0)


def loader(main: Main) -> Any:
    return lambda: main


def test_a_worker_goes_on_in_python() -> None:
    before = dict(os.environ)

    def main() -> int:
        env = dict(os.environ)
        os.write(1, repr((open_numbers(), env.pop("LISTEN_FDS"), env.pop("LISTEN_PID") == str(os.getpid()))).encode())
        return 7 if env == {"A": "1", "LISTEN_FDNAMES": "x"} else 1

    outcome = start(service(env={"A": "1"}), (), load=loader(main), fds=(("x", 0),))
    assert outcome.failure is None
    assert outcome.output == "({0, 1, 2, 3}, '1', True)"
    assert exited(outcome.status) == 7
    assert dict(os.environ) == before


@pytest.mark.parametrize("hears", [True, False])
def test_signals_stay_blocked_for_who_is_to_unblock_them(hears: bool) -> None:
    def main() -> int:
        return len(signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM, signal.SIGHUP})

    assert exited(start(service(), (), load=loader(main), hears=hears).status) == (0 if hears else 2)


@pytest.mark.parametrize("count", [0, 2, MOST - 2, MOST - 1, MOST, 3 * MOST])
def test_a_plan_and_its_descriptors_are_sent(count: int) -> None:
    """They arrive in a child of a fork server, which has nothing but its socket."""
    ours, theirs = socket.socketpair()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    own = [os.memfd_create(f"f{number}") for number in range(count)]
    launch = Launch(
        argv=(), env={"A": "\u00fc"}, service=service(), stdio=("/dev/null", write_end, write_end), worker=True,
        fds=(("null", "/dev/null"), *((f"f{number}", fd) for number, fd in enumerate(own))),
        error_fd=theirs.fileno(), nofile_soft=4096, is_root=os.geteuid() == 0,
    )  # fmt: skip

    def main() -> int:
        table = sorted(open_numbers())
        found = [os.fstat(number).st_ino for number in table[4:]]
        os.write(1, json.dumps([os.environ["A"], table, os.get_inheritable(3), found]).encode())
        return 0

    def become() -> None:
        os.dup2(theirs.fileno(), SOCKET, inheritable=False)
        child.become_worker(child.receive_plan(SOCKET), SOCKET, lambda: main)

    inodes = [os.fstat(fd).st_ino for fd in own]
    child.send_plan(ours.fileno(), launch)
    ours.send(b"\n")  # the release, which is not part of it
    pid = fork(become)
    for fd in (*own, write_end, theirs.detach()):
        os.close(fd)
    assert read_all(ours.detach()) == b""
    name, table, is_inherited, found = json.loads(read_all(read_end))
    assert exited(os.waitpid(pid, 0)[1]) == 0
    assert (name, is_inherited, found) == ("\u00fc", True, inodes)
    assert table == list(range(4 + count))


def test_a_child_whose_spawnd_is_gone_before_its_plan_has_come() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        with pytest.raises(StepError, match="spawnd is gone"):
            child.receive_plan(theirs.fileno())


def test_a_worker_that_cannot_be_loaded() -> None:
    def load() -> Main:
        raise ImportError("no module named 'nowhere'")

    outcome = start(service(), (), load=load)
    assert str(outcome.failure) == "cannot set up: ImportError: no module named 'nowhere'"
    assert exited(outcome.status) == EXIT_CHILD_FAILED


def test_a_worker_that_breaks_says_so_on_stderr() -> None:
    def main() -> int:
        raise RuntimeError("broken")

    outcome = start(service(), (), load=loader(main))
    assert outcome.failure is None
    assert "RuntimeError: broken" in outcome.output
    assert exited(outcome.status) == EXIT_CHILD_FAILED


def test_a_worker_that_exits() -> None:
    def main() -> int:
        raise SystemExit(3)

    assert exited(start(service(), (), load=loader(main)).status) == 3


def test_the_parent_is_as_it_was() -> None:
    def compare() -> bool:
        before = open_numbers(), os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE), signal.pthread_sigmask(0, [])
        for _ in range(20):
            start(service(), TRUE)
            start(service(cwd="/nowhere"), TRUE)
        after = open_numbers(), os.getcwd(), resource.getrlimit(resource.RLIMIT_NOFILE), signal.pthread_sigmask(0, [])
        return before == after

    assert in_child(compare)
