"""A TFTP client that shows every packet, so that tests can lose, repeat and forge some."""

from __future__ import annotations

import select
import socket
import struct

RRQ, WRQ, DATA, ACK, ERROR, OACK = range(1, 7)
DEADLINE_S = 60.0

Packet = tuple[int, int, bytes]  # opcode, number of the block or error (0 in an OACK), the rest


class TftpClient:
    """One request and the transfer that follows.  Owns its socket."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server = server
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.settimeout(DEADLINE_S)
        self.tid: tuple[str, int] | None = None  # the server's address for this transfer

    def close(self) -> None:
        self.sock.close()

    def request(self, name: bytes, mode: bytes = b"octet", opcode: int = RRQ, **options: object) -> None:
        fields = [name, mode]
        for option, value in options.items():
            fields += [option.encode(), str(value).encode()]
        self.sock.sendto(struct.pack("!H", opcode) + b"".join(field + b"\0" for field in fields), self.server)

    def receive(self) -> Packet:
        packet, sender = self.sock.recvfrom(65536)
        if self.tid is None:
            self.tid = sender
        assert sender == self.tid
        opcode = int.from_bytes(packet[:2], "big")
        if opcode == OACK:
            return opcode, 0, packet[2:]
        return opcode, int.from_bytes(packet[2:4], "big"), packet[4:]

    def send(self, opcode: int, number: int, rest: bytes = b"") -> None:
        assert self.tid
        self.sock.sendto(struct.pack("!HH", opcode, number) + rest, self.tid)

    def ack(self, block: int) -> None:
        self.send(ACK, block & 0xFFFF)

    def has_nothing(self) -> bool:
        return not select.select([self.sock], [], [], 0)[0]

    def download(self, blksize: int = 512, first: int = 1) -> bytes:
        """Take the blocks from `first` on, acknowledging each, and return their data."""
        received = []
        block = first
        while True:
            opcode, number, data = self.receive()
            assert (opcode, number) == (DATA, block & 0xFFFF), (opcode, number, data)
            self.ack(block)
            received.append(data)
            if len(data) < blksize:
                return b"".join(received)
            block += 1

    def fetch(self, name: bytes, mode: bytes = b"octet") -> bytes:
        self.request(name, mode)
        return self.download()

    def error(self) -> tuple[int, bytes]:
        opcode, number, message = self.receive()
        assert opcode == ERROR, (opcode, number, message)
        return number, message


def options_of(packet: Packet) -> dict[bytes, bytes]:
    opcode, _, rest = packet
    assert opcode == OACK
    fields = rest.split(b"\0")
    assert fields.pop() == b""
    return dict(zip(fields[::2], fields[1::2], strict=True))
