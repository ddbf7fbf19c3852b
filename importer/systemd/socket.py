"""The [Socket] section of the socket units of a service: its descriptors, and `accept`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import ip_network

from importer.systemd import values
from importer.systemd.conversion import Conversion
from importer.systemd.unit_file import Entry
from importer.systemd.units import Unit
from importer.systemd.values import ValueNotUnderstood
from importer.values import Code, Value, call

LISTEN = ("ListenStream", "ListenDatagram", "ListenSequentialPacket", "ListenFIFO", "ListenSpecial")
PATH_KINDS = {"ListenStream": "stream", "ListenDatagram": "dgram", "ListenSequentialPacket": "seqpacket"}
PORT_KINDS = {"ListenStream": "tcp", "ListenDatagram": "udp"}
_ADDRESS = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<four>[0-9.]+)):(?P<port>[0-9]{1,5})")
_PROGRAM_SETS = "the program sets it"
_FOR_HOST = "sysctl(8), routes and rules of nftables set it"
REFUSED = {
    **dict.fromkeys(("ListenNetlink", "ListenMessageQueue", "ListenUSBFunction"), "programs that need it open it"),
    **dict.fromkeys(("SmackLabel", "SmackLabelIPIn", "SmackLabelIPOut", "SELinuxContextFromNet"), "it has no effect"),
    **dict.fromkeys(("KeepAliveTimeSec", "KeepAliveIntervalSec", "KeepAliveProbes", "TCPCongestion"), _FOR_HOST),
    **dict.fromkeys(("Priority", "IPTOS", "IPTTL"), _FOR_HOST),
    **dict.fromkeys(("PipeSize", "MessageQueueMaxMessages", "MessageQueueMessageSize", "Broadcast"), _PROGRAM_SETS),
    **dict.fromkeys(("PassSecurity", "PassPIDFD", "PassPacketInfo"), _PROGRAM_SETS),
    **dict.fromkeys(("AcceptFileDescriptors", "Timestamping"), _PROGRAM_SETS),
    **dict.fromkeys(("ExecStartPre", "ExecStartPost", "ExecStopPre", "ExecStopPost"), "nothing is run for a socket"),
    "FlushPending": "data that the service has not read start it again",
    "SocketProtocol": "tcp and udp are all there is",
    "DirectoryMode": "the directory has to be there: tmpfiles.d(5) makes it",
    "Symlinks": "tmpfiles.d(5) makes links",
    "XAttrEntryPoint": "it describes sockets to tools of systemd",
    "XAttrListen": "it describes sockets to tools of systemd",
    "XAttrAccept": "it describes sockets to tools of systemd",
}
NEEDS_NOTHING = {
    "RemoveOnStop": "always",
    "Service": "the socket and its program are one definition",
    "TimeoutSec": "no command is run that could take long",
    "PollLimitIntervalSec": "a client that waits keeps nothing busy",
    "PollLimitBurst": "a client that waits keeps nothing busy",
    "DeferTrigger": "clients wait",
    "DeferTriggerMaxSec": "clients wait",
    "Writable": "files are opened to be written",
    "PassFileDescriptorsToExec": "check has the descriptors",
}


def accepts(socket: Unit) -> bool:
    return not values.is_off(socket.value("Socket", "Accept"))


class SocketConversion:
    """The directives of one socket unit, for the service of `conversion`."""

    def __init__(self, conversion: Conversion, socket: Unit) -> None:
        self._conversion = conversion
        self._socket = socket
        self.descriptors: list[Code] = []
        self.accept: dict[str, Value] = {}
        self.has_datagrams = False

    def convert(self) -> None:
        """Convert the section: options first, as each socket has all of them."""
        done: set[str] = set()
        entries = [entry for entry in self._socket.entries if entry.section == "Socket"]
        options = self._options(entries)
        for entry in entries:
            same = [other for other in entries if other.key == entry.key]
            if entry.key in LISTEN:
                self._guarded([entry], lambda entries: self._listen(entries[0], options))
            elif entry.key not in done:
                done.add(entry.key)
                self._guarded(same, self._other)

    def _guarded(self, entries: Sequence[Entry], handle: Callable[[Sequence[Entry]], None]) -> None:
        try:
            handle(entries)
        except ValueError as error:
            self._conversion.left_out(entries, str(error))

    def _options(self, entries: Sequence[Entry]) -> dict[str, Value]:
        """Return the options of all sockets, by name; the fates of their directives are recorded with these."""
        found: dict[str, Value] = {}
        for entry in entries:
            option = _OPTIONS.get(entry.key)
            if option:
                try:
                    name, value = option(self._socket.expand(entry.value))
                except ValueError:
                    continue
                if value is not False:
                    found[name] = value
        return found

    def _listen(self, entry: Entry, options: dict[str, Value]) -> None:
        address = self._socket.expand(entry.value)
        if entry.key in ("ListenFIFO", "ListenSpecial"):
            self.descriptors.append(call("file", values.absolute(address), "r+", **_chosen(options, ("name",))))
            text = "the FIFO has to be there: tmpfiles.d(5) makes it" if entry.key == "ListenFIFO" else ""
            self._record(entry, text)
            return
        if address.startswith(("/", "@")):
            names = ["backlog", "passcred", "sndbuf", "rcvbuf", "name"]
            names += ["owner", "group", "mode"] if address.startswith("/") else []
            kind = PATH_KINDS[entry.key]
            chosen = _chosen(options, names, without=("backlog",) if kind == "dgram" else ())
            if address.startswith("/") and "mode" not in chosen:
                chosen["mode"] = "rw-rw-rw-"  # SocketMode has 0666
            self.descriptors.append(call(kind, address, **chosen))
            self.has_datagrams |= kind == "dgram"
        else:
            self._listen_at_port(entry, address, options)
        self._record(entry, "")

    def _listen_at_port(self, entry: Entry, address: str, options: dict[str, Value]) -> None:
        kind = PORT_KINDS.get(entry.key)
        found = _ADDRESS.fullmatch(address)
        if kind is None or not (found or address.isdecimal()):
            raise ValueNotUnderstood(f"{address!r} is not a path, a port or an address with a port")
        host = (found["six"] or found["four"]) if found else "*"
        port = values.integer(found["port"] if found else address, 0, 65535)
        common = ["reuseport", "freebind", "transparent", "mark", "sndbuf", "rcvbuf", "name", "interface"]
        chosen = _chosen(options, [*common, *(("backlog", "nodelay", "defer_accept") if kind == "tcp" else ())])
        only = self._socket.value("Socket", "BindIPv6Only")
        if only in ("ipv6-only", "both") and (":" in host or (host == "*" and only == "ipv6-only")):
            host = "::" if host == "*" else host
            chosen["v6only"] = only == "ipv6-only"
        if accepts(self._socket) and chosen.get("nodelay"):
            del chosen["nodelay"]
            self.accept["nodelay"] = True
        self.has_datagrams |= kind == "udp"
        self.descriptors.append(call(kind, host, port, **chosen))

    def _record(self, entry: Entry, text: str) -> None:
        if text:
            self._conversion.approximate([entry], text)
        else:
            self._conversion.carried([entry])

    def _other(self, entries: Sequence[Entry]) -> None:
        """Convert a directive that is about all sockets, or about the clients of them."""
        conversion, key, value = self._conversion, entries[-1].key, entries[-1].value
        if key in _OPTIONS:
            _OPTIONS[key](self._socket.expand(value))
            conversion.carried(entries)
        elif key in ("Accept", "BindIPv6Only"):
            conversion.carried(entries)
        elif key in ("TriggerLimitBurst", "TriggerLimitIntervalSec"):
            self._trigger_limit(entries)
        elif key in _CLIENTS and accepts(self._socket):
            self._clients(key, entries)
        elif key in _ACCEPT:
            self._of_accept(key, entries)
        elif key in NEEDS_NOTHING:
            conversion.carried(entries, NEEDS_NOTHING[key])
        elif values.is_off(value):
            conversion.carried(entries, "it is off")
        else:
            conversion.left_out(entries, REFUSED.get(key, "it is unknown"))

    def _of_accept(self, key: str, entries: Sequence[Entry]) -> None:
        """Convert a directive that is an entry of `accept`."""
        name, converted = _ACCEPT[key](entries[-1].value)
        if accepts(self._socket):
            if converted is not False:
                self.accept[name] = converted
            self._conversion.carried(entries)
        elif name == "keepalive" and converted:
            self._conversion.left_out(entries, _PROGRAM_SETS)
        else:
            self._conversion.carried(entries, "it counts with Accept=yes alone")

    def _clients(self, key: str, entries: Sequence[Entry]) -> None:
        """Convert lists of networks; a denial of all that is not allowed is `only_from` alone."""
        words = [word for entry in entries for word in entry.value.split()]
        networks: list[Value] = [network for word in words for network in _networks(word)]
        denied = self._socket.all("Socket", "IPAddressDeny")
        if key == "IPAddressAllow" and not denied:
            self._conversion.carried(entries, "everybody is let in")
        elif key == "IPAddressDeny" and any(word == "any" for word in words):
            self.accept.setdefault("only_from", [])
            self._conversion.carried(entries)
        else:
            self.accept[_CLIENTS[key]] = networks
            self._conversion.carried(entries)

    def _trigger_limit(self, entries: Sequence[Entry]) -> None:
        """Convert both directives when the burst is at hand: so many starts in an interval."""
        if not accepts(self._socket):
            self._conversion.approximate(entries, "after growing delays, the service is started again")
            return
        burst = values.integer(self._socket.value("Socket", "TriggerLimitBurst", "200"), 0, 1_000_000)
        interval = values.seconds(self._socket.value("Socket", "TriggerLimitIntervalSec", "2s"))
        if burst and interval:
            per_second = burst / interval
            rate = f"{max(1, round(per_second))}/s" if per_second >= 1 else f"{max(1, round(per_second * 60))}/m"
            self.accept.update({"rate": rate, "burst": burst})
        self._conversion.approximate(entries, "clients beyond it wait, and the socket never fails")


def _networks(word: str) -> list[str]:
    """Return the networks that a word of IPAddressAllow names. Raises ValueError."""
    known = {
        "localhost": ["127.0.0.0/8", "::1/128"],
        "link-local": ["169.254.0.0/16", "fe80::/64"],
        "multicast": ["224.0.0.0/4", "ff00::/8"],
        "any": ["0.0.0.0/0", "::/0"],
    }
    return known[word] if word in known else [str(ip_network(word, strict=False))]


def _chosen(options: dict[str, Value], names: Sequence[str], without: Sequence[str] = ()) -> dict[str, Value]:
    return {name: options[name] for name in names if name in options and name not in without}


def _flag(name: str) -> Callable[[str], tuple[str, Value]]:
    return lambda text: (name, values.boolean(text))


def _size(name: str) -> Callable[[str], tuple[str, Value]]:
    return lambda text: (name, values.size(text))


def _mode(text: str) -> tuple[str, Value]:
    bits = int(values.mode(text), 8)
    return "mode", "".join(letter if bits >> (8 - place) & 1 else "-" for place, letter in enumerate("rwxrwxrwx"))


def _backlog(text: str) -> tuple[str, Value]:
    return "backlog", values.integer(text, 1, (1 << 31) - 1) if int(text) < 1 << 31 else False


def _defer_accept(text: str) -> tuple[str, Value]:
    number = values.seconds(text)
    if not number or not 1 <= number <= 600:
        raise ValueNotUnderstood("it has to be 1 s to 10 min")
    return "defer_accept", values.duration(number)


_OPTIONS: dict[str, Callable[[str], tuple[str, Value]]] = {
    "Backlog": _backlog,
    "BindToDevice": lambda text: ("interface", text),
    "DeferAcceptSec": _defer_accept,
    "FileDescriptorName": lambda text: ("name", text),
    "FreeBind": _flag("freebind"),
    "Mark": lambda text: ("mark", values.integer(text, 0, (1 << 32) - 1)),
    "NoDelay": _flag("nodelay"),
    "PassCredentials": _flag("passcred"),
    "ReceiveBuffer": _size("rcvbuf"),
    "ReusePort": _flag("reuseport"),
    "SendBuffer": _size("sndbuf"),
    "SocketGroup": lambda text: ("group", text),
    "SocketMode": _mode,
    "SocketUser": lambda text: ("owner", text),
    "Transparent": _flag("transparent"),
}
_CLIENTS = {"IPAddressAllow": "only_from", "IPAddressDeny": "no_access"}
_ACCEPT: dict[str, Callable[[str], tuple[str, Value]]] = {
    "KeepAlive": _flag("keepalive"),
    "MaxConnections": lambda text: ("max", values.integer(text, 1, 16384)),
    "MaxConnectionsPerSource": lambda text: ("per_source", values.integer(text, 1, 16384) if text != "0" else False),
}
