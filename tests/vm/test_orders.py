from __future__ import annotations

import pytest

from tests.vm.guest import orders
from tests.vm.guest.orders import decode, encode, new_token


def test_a_message_arrives() -> None:
    token = new_token()
    line = encode(token, orders.REPORT, {"report": {"nodeid": "a\nb"}})
    assert line.count(b"\n") == 1
    assert decode(token, line) == {"token": token, "kind": orders.REPORT, "report": {"nodeid": "a\nb"}}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"\xff\xfe\n",
        b"12\n",
        b"[]\n",
        b'{"kind": "end", "then": "poweroff"}\n',
        b'{"token": "", "kind": "end", "then": "poweroff"}\n',
        b'{"token": "secret"}\n',
        b'{"token": "secret", "kind": 1}\n',
        b'{"token": "secret", "kind": "end"',
        encode("another", orders.END, {"then": "poweroff"}),
        b"\0\0" + encode("secret", orders.END, {"then": "poweroff"}),
    ],
)
def test_nothing_else_is_a_message(line: bytes) -> None:
    assert decode("secret", line) is None
