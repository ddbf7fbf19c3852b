"""The services of the spawnd that is interrupted. `@/` is its folder.

Each program locks a file of the name of its service and writes a byte to it, so a second process is found, and the
number of starts is known without a question to spawnd.
"""

from __future__ import annotations

from pathlib import Path

from tests.unit.process.launched import PYTHON

# Lock a file, or say that another process has it; then live.
LOCK = (
    'open F, ">>", $ARGV[0] or die; flock F, 6 or do { open T, ">>", "$ARGV[0].twice"; syswrite T, "$$\\n"; exit };'
    'syswrite F, ".";'
)
PLAIN = LOCK + "sleep 100000;"
HELPER = LOCK + "if (!fork) { close F; setpgrp; sleep 100000 } sleep 100000;"
READY = LOCK + 'open R, ">&=", $ARGV[1]; syswrite R, "\\n"; close R; sleep 100000;'
DAEMON = "if (fork) { exit 0 } use POSIX; POSIX::setsid(); " + PLAIN
# Return what a client sends, after the pid: for one client after the other, or for one in all.
ECHO = """syswrite C, "$$\\n"; while (sysread C, $b, 100) { syswrite C, $b } close C; """
LISTEN = LOCK + '$SIG{PIPE} = "IGNORE"; open S, "+<&=", 3;'
SERVER = LISTEN + "while (1) { accept C, S or next; " + ECHO + "}"
SLEEPER = LISTEN + "until (accept C, S) {} " + ECHO
SESSION = 'syswrite STDOUT, "$$\\n"; while (sysread STDIN, $b, 100) { syswrite STDOUT, $b }'
# Keeps a descriptor in the store. At USR1 it says the text of a file, in its status and on its log.
NOTIFY = """
import fcntl, os, signal, socket, sys, time
sys.excepthook = lambda *_: None  # without a spawnd it ends, and the next one starts it again
file = open(sys.argv[1], "a")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open(sys.argv[1] + ".twice", "a").write("x\\n")
    sys.exit()
file.write(".")
file.flush()
sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sock.connect(os.environ["NOTIFY_SOCKET"])
def say(*_):
    word = open(sys.argv[1] + ".word").read()
    os.write(2, b"says %s\\n" % word.encode())
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.sendto(b"STATUS=%s" % word.encode(), os.environ["NOTIFY_SOCKET"])
    except OSError:
        pass  # there is no spawnd
signal.signal(signal.SIGUSR1, say)
if int(os.environ.get("LISTEN_FDS", 0)) < 2:
    socket.send_fds(sock, [b"FDSTORE=1\\nFDNAME=kept"], [os.memfd_create("kept")])
sock.send(b"READY=1\\nSTATUS=here")
while True: time.sleep(100000)
"""
DEFINITIONS = """
local function perl(text, name, ...)
  return { exec = "/usr/bin/perl", arg = { "-e", text, "@/" .. name, ... }, user = "root", healthy_after = "1ms",
    start_limit = false, backoff = { first = "10ms", max = "10ms" }, stdout = log(), stderr = log() }
end
plain = perl([[PLAIN]], "plain")
plain.fd = { tcp("127.0.0.1", 0), stream("@/plain.sock") }
plain.env = { VERSION = "1" }
helper = perl([[HELPER]], "helper")
fd = perl([[READY]], "fd", "9")
fd.ready = "fd"
fd.ready_fd = 9
daemon = perl([[DAEMON]], "daemon")
daemon.forking = true
checked = perl([[PLAIN]], "checked")
checked.check = { "/bin/true" }
notify = { exec = "[[PYTHON]]", arg = { "-IS", "-c", [[NOTIFY]], "@/notify" }, user = "root", healthy_after = "1ms",
  ready = "notify", fdstore_max = 4, start_limit = false, backoff = { first = "10ms", max = "10ms" },
  fd = { udp("127.0.0.1", 0) }, stderr = log() }
writer = perl([[PLAIN]], "writer")
writer.stdout = file("@/writer.out", "a")
acc = { worker = "accessory", fd = { seqpacket("@/acc.sock") }, healthy_after = "1ms", start_limit = false,
  backoff = { first = "10ms", max = "10ms" } }
"""
ON_DEMAND = """
sleeper = perl([[SLEEPER]], "sleeper")
sleeper.status = "demand"
sleeper.fd = { stream("@/sleeper.sock") }
idle = perl([[SERVER]], "idle")
idle.status = "demand"
idle.idle_stop = "20ms"
idle.idle_cpu = "100%"
idle.fd = { stream("@/idle.sock") }
local function session(...)
  return { exec = "/usr/bin/perl", arg = { "-e", [[SESSION]] }, user = "root", healthy_after = "1ms", fd = { ... },
    backoff = { first = "10ms", max = "10ms" }, accept = { linger = false[[SESSION_CGROUP]] } }
end
sessions = session(tcp("127.0.0.1", 0), stream("@/sessions.sock"))
trap = { user = "root", healthy_after = "1ms", backoff = { first = "10ms", max = "10ms" },
  fd = { tcp("127.0.0.1", 0) }, accept = { trap = true, no_access = "127.0.0.1", linger = false } }
"""
MODULE = """
module("mod", package.seeall)
function start() io.open("@/mod", "w"):close() end
function stop() os.remove("@/mod") end
"""
PROGRAMS = {
    "HELPER": HELPER,
    "READY": READY,
    "DAEMON": DAEMON,
    "PLAIN": PLAIN,
    "NOTIFY": NOTIFY,
    "SERVER": SERVER,
    "SLEEPER": SLEEPER,
    "SESSION": SESSION,
}
NAMES = ("plain", "helper", "fd", "daemon", "checked", "notify", "writer", "acc", "mod")
ON_DEMAND_NAMES = ("sleeper", "idle", "sessions", "trap")


def definitions(folder: Path, cgroup: Path | None, on_demand: bool) -> str:
    text = (DEFINITIONS + (ON_DEMAND if on_demand else "")).replace("[[PYTHON]]", PYTHON)
    for name, program in PROGRAMS.items():
        text = text.replace(f"[[{name}]]", f"[==[{program}]==]")
    text = text.replace("[[SESSION_CGROUP]]", ", session_cgroup = true" if cgroup is not None else "")
    settings = f'_SUPERVISOR = {{ cgroup = "{cgroup}" }}\n' if cgroup is not None else ""
    return settings + text.replace("@/", f"{folder}/")
