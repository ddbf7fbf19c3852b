"""The services of the pattern that the supervisor follows, as they are written there but for paths and users."""

from __future__ import annotations

from supervisor.definitions.service import NULL_ERR, NULL_IN, NULL_OUT, Descriptor
from tests.unit.definitions.loading import Files

DEFAULT = """
_DEFAULT =
{
  user = "nobody",
  group = "nobody",
  cwd = "/",
  umask = "---rwxrwx",
  arg = {},
  env = {},
  stdin = file("/dev/null","r"),
  stdout = file("/dev/null","w"),
  stderr = file("/dev/null","w"),
  fd = {},
  limits = {}
}
"""

STUPID = """
stupid =
{
  cwd = "/tmp",
  exec = "/srv/misc/stupid",
  env = { LUA_CPATH = ";;/srv/misc/?.so" },
  stderr = dgram("/dev/log",'connect'),
  limits =
  {
    stack = '64k',
    cpu = '5m',
    core = 0,
    nofile = 4
  }
}
"""

TFTP = """
tftp =
{
  user = "daemon",
  group = "daemon",
  umask = "----w--w-",
  cwd = "/tftpboot",
  exec = "/srv/tftp/tftpd.lua",
  env =
  {
    LUA_CPATH = ";;/srv/tftp/?.so" ,
    LUA_PATH = ";;/srv/tftp/?.lua"
  },
  fd =
  {
    udp("0.0.0.0",'tftp')
  }
}
"""

QOTD = """
qotd =
{
  exec = "/srv/misc/qotd",
  fd =
  {
    udp("0.0.0.0",ports['qotd']),
    tcp("0.0.0.0",ports['qotd']),
    file("/srv/quotes/quotes.txt","r"),
    file("/srv/.quotes.index","r")
  }
}
"""


def test_its_defaults_are_ours(files: Files) -> None:
    without = files.load(QOTD).services["qotd"]
    with_default = files.load(DEFAULT + QOTD).services["qotd"]
    assert (with_default.stdin, with_default.stdout, with_default.stderr) == (NULL_IN, NULL_OUT, NULL_ERR)
    assert (with_default.user, with_default.uid, with_default.gid) == (without.user, without.uid, without.gid)
    assert (with_default.cwd, with_default.umask, with_default.group) == ("/", 0o077, without.group)


def test_stupid(files: Files) -> None:
    service = files.load(STUPID).services["stupid"]
    assert service.limits == {"stack": (65536, 65536), "cpu": (300, 300), "core": (0, 0), "nofile": (4, 4)}
    assert service.stderr == Descriptor("dgram", name="stderr", path="/dev/log", connect=True)
    assert service.env == {"LUA_CPATH": ";;/srv/misc/?.so"}


def test_tftp(files: Files) -> None:
    service = files.load(TFTP).services["tftp"]
    assert (service.user, service.group, service.umask) == ("daemon", "daemon", 0o022)
    assert service.uid > 0
    assert service.fd == (Descriptor("udp", name="tftp", host="0.0.0.0", port=69),)


def test_qotd(files: Files) -> None:
    service = files.load(QOTD).services["qotd"]
    assert service.fd == (
        Descriptor("udp", name="qotd", host="0.0.0.0", port=17),
        Descriptor("tcp", name="qotd", host="0.0.0.0", port=17),
        Descriptor("file", name="quotes.txt", path="/srv/quotes/quotes.txt", access="r"),
        Descriptor("file", name=".quotes.index", path="/srv/.quotes.index", access="r"),
    )


def test_all_in_one_file(files: Files) -> None:
    assert list(files.load(DEFAULT + STUPID + TFTP + QOTD).services) == ["stupid", "tftp", "qotd"]
