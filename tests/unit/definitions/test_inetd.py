"""docs/inetd.md: each attribute of xinetd and each key of systemd's socket units; its examples are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from supervisor.definitions.service import KEYS as OUR_KEYS
from tests.unit.definitions.loading import Files

TEXT = (Path(__file__).parents[3] / "docs" / "inetd.md").read_text(encoding="utf-8")

# xinetd.conf(5) of xinetd 2.3.15, and systemd.socket(5) of systemd 262
ATTRIBUTES = """
    id type flags disable socket_type protocol wait user group instances nice server server_args libwrap only_from
    no_access access_times log_type log_on_success log_on_failure rpc_version rpc_number env passenv port redirect
    bind interface banner banner_success banner_fail per_source cps max_load groups mdns umask enabled disabled
    include includedir rlimit_as rlimit_files rlimit_cpu rlimit_data rlimit_rss rlimit_stack deny_time
"""
FLAGS = """
    INTERCEPT NORETRY IDONLY NAMEINARGS NODELAY KEEPALIVE NOLIBWRAP SENSOR IPv4 IPv6 LABELED REUSE
"""
SERVICES = "echo time daytime chargen discard"
KEYS = """
    ListenStream ListenDatagram ListenSequentialPacket ListenFIFO ListenSpecial ListenNetlink ListenMessageQueue
    ListenUSBFunction SocketProtocol BindIPv6Only Backlog BindToDevice SocketUser SocketGroup SocketMode DirectoryMode
    Accept Writable FlushPending MaxConnections MaxConnectionsPerSource KeepAlive KeepAliveTimeSec
    KeepAliveIntervalSec KeepAliveProbes NoDelay Priority DeferAcceptSec ReceiveBuffer SendBuffer IPTOS IPTTL Mark
    ReusePort SmackLabel SmackLabelIPIn SmackLabelIPOut SELinuxContextFromNet PipeSize MessageQueueMaxMessages
    MessageQueueMessageSize FreeBind Transparent Broadcast PassCredentials PassPIDFD PassSecurity PassPacketInfo
    AcceptFileDescriptors Timestamping TCPCongestion ExecStartPre ExecStartPost ExecStopPre ExecStopPost TimeoutSec
    Service RemoveOnStop Symlinks FileDescriptorName TriggerLimitIntervalSec TriggerLimitBurst PollLimitIntervalSec
    PollLimitBurst PassFileDescriptorsToExec DeferTrigger DeferTriggerMaxSec XAttrEntryPoint XAttrListen XAttrAccept
"""
# by the heading of the table
NAMES = {
    "Attributes of xinetd": ATTRIBUTES,
    "Flags of xinetd": FLAGS,
    "Services inside xinetd": SERVICES,
    "Keys of systemd's socket units": KEYS,
}
EXAMPLES = re.findall(r"```lua.*?\n(.*?)```", TEXT, re.S)
# values of attributes, which a row explains
VALUES = re.findall(r"`(?:type|log_\w+)` \| (.*)", TEXT)


def rows(heading: str) -> list[tuple[list[str], str]]:
    """The names in the first column of each row of a table, and the rest of the row."""
    section = re.split(r"^##+ ", TEXT[TEXT.index(f"# {heading}\n") + 2 :], flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| (`[^|]*) \| (.*) \|$", section, re.MULTILINE)
    return [(re.findall(r"`([^`]+)`", first), rest) for first, rest in cells]


@pytest.mark.parametrize("heading", NAMES)
def test_every_name_has_one_row(heading: str) -> None:
    named = [name for names, _ in rows(heading) for name in names]
    assert sorted(named) == sorted(NAMES[heading].split())


@pytest.mark.parametrize("heading", NAMES)
def test_nothing_is_left_out_without_a_reason(heading: str) -> None:
    bare = [names for names, rest in rows(heading) if re.match(r"(refused|nothing|no|none)\b(?!: |, (as|see)\b)", rest)]
    assert bare == []


@pytest.mark.parametrize(
    "value", ["UNLISTED", "INTERNAL", "RPC", "TCPMUX", "TCPMUXPLUS", "FILE", "SYSLOG", "PID", "HOST", "USERID", "EXIT",
              "DURATION", "TRAFFIC", "ATTEMPT"],
)  # fmt: skip
def test_the_values_of_attributes_are_explained(value: str) -> None:
    assert any(f"`{value}`" in cell for cell in VALUES)


@pytest.mark.parametrize("name", [*ATTRIBUTES.split(), *KEYS.split()])
def test_a_check_says_what_there_is_instead(files: Files, name: str) -> None:
    if name in OUR_KEYS:
        return
    message = next(text for text in files.problems(f'web = {{ exec = "/x", {name} = "x" }}') if "unknown key" in text)
    advice = message.partition(f"unknown key {name!r}")[2]
    assert re.search(r"'\w+'|`\w+ = |there is none; ", advice)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(files: Files, example: str) -> None:
    assert files.load(example).services
