"""sodium, against PyNaCl and the vectors of RFC 8032 and RFC 7748."""

from __future__ import annotations

import pytest
from nacl.public import PrivateKey, SealedBox

from tests.unit.workers.lua.scripts import prints, raises

SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"  # RFC 8032, 7.1, test 1
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
SIGNATURE = (
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
    "d25bf5f0595bbe24655141438e7a100b"
)
BINARY = "sodium.hex2bin"
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"  # RFC 7748, 6.1
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (r"sodium.bin2hex('A\0\255')", "4100ff"),
        ("sodium.bin2hex('')", ""),
        (r"sodium.hex2bin('deadbeef') == '\222\173\190\239'", "true"),
        (r"sodium.hex2bin('DEADbeef') == '\222\173\190\239'", "true"),
        ("sodium.hex2bin('') == ''", "true"),
        ("sodium.hex2bin('abc')", "nil"),
        ("sodium.hex2bin('xx')", "nil"),
        ("sodium.hex2bin('de ad')", "nil"),
        (r"sodium.hex2bin('de\0ad')", "nil"),
        (r"sodium.hex2bin('\255\255')", "nil"),
        ("#sodium.randombytes(1)", "1"),
        ("#sodium.randombytes(1048576)", "1048576"),
        ("sodium.randombytes(32) ~= sodium.randombytes(32)", "true"),
        (f"sodium.bin2hex(sodium.crypto_scalarmult_base(sodium.hex2bin('{ALICE}')))", ALICE_PUBLIC),
        (f"sodium.bin2hex(sodium.crypto_sign_detached('', sodium.hex2bin('{SEED}{PUBLIC}')))", SIGNATURE),
        (f"sodium.crypto_sign_verify_detached({BINARY}('{SIGNATURE}'), '', {BINARY}('{PUBLIC}'))", "true"),
        (f"sodium.crypto_sign_verify_detached({BINARY}('{SIGNATURE}'), 'x', {BINARY}('{PUBLIC}'))", "false"),
        (f"sodium.crypto_sign_verify_detached('short', '', {BINARY}('{PUBLIC}'))", "false"),
    ],
)
def test_values(expression: str, value: str) -> None:
    assert prints(f"print({expression})") == [value]


def test_boxes() -> None:
    script = r"""
local pk, sk = sodium.crypto_box_keypair()
print(#pk, #sk, sodium.crypto_scalarmult_base(sk) == pk)
local message = "hello\0world\255"
local sealed = sodium.crypto_box_seal(message, pk)
print(#sealed - #message, sodium.crypto_box_seal_open(sealed, pk, sk) == message)
print(sodium.crypto_box_seal_open(sodium.crypto_box_seal("", pk), pk, sk) == "")
local pk2, sk2 = sodium.crypto_box_keypair()
print(sodium.crypto_box_seal_open(sealed, pk2, sk2), sodium.crypto_box_seal_open(sealed .. "x", pk, sk))
print(sodium.crypto_box_seal_open("", pk, sk), sodium.crypto_box_seal_open("short", pk, sk))
"""
    assert prints(script) == ["32\t32\ttrue", "48\ttrue", "true", "nil\tnil", "nil\tnil"]


def test_others_open_what_a_script_seals() -> None:
    key = PrivateKey.generate()
    script = f"print(sodium.bin2hex(sodium.crypto_box_seal('x', sodium.hex2bin('{bytes(key.public_key).hex()}'))))"
    assert SealedBox(key).decrypt(bytes.fromhex(prints(script)[0])) == b"x"


def test_signatures() -> None:
    script = r"""
local pk, sk = sodium.crypto_sign_keypair()
print(#pk, #sk)
local signature = sodium.crypto_sign_detached("a\0b", sk)
print(#signature, sodium.crypto_sign_verify_detached(signature, "a\0b", pk))
print(sodium.crypto_sign_verify_detached(signature, "a\0c", pk))
"""
    assert prints(script) == ["32\t64", "64\ttrue", "false"]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ("bin2hex()", "bad argument #1 to 'bin2hex' (string expected, got nil)"),
        ("hex2bin({})", "bad argument #1 to 'hex2bin' (string expected, got table)"),
        ("hex2bin('aa', 1)", "bad argument #2 to 'hex2bin' (no more than 1 expected)"),
        ("randombytes()", "bad argument #1 to 'randombytes' (number expected, got nil)"),
        ("randombytes(0)", "bad argument #1 to 'randombytes' (an integer from 1 to 1048576 expected, got 0)"),
        ("randombytes(2e6)", "bad argument #1 to 'randombytes' (an integer from 1 to 1048576 expected, got 2000000)"),
        ("randombytes(1.5)", "bad argument #1 to 'randombytes' (an integer from 1 to 1048576 expected, got 1.5)"),
        ("randombytes(0/0)", "bad argument #1 to 'randombytes' (an integer from 1 to 1048576 expected, got nan)"),
        ("crypto_box_keypair(1)", "bad argument #1 to 'crypto_box_keypair' (no more than 0 expected)"),
        (
            "crypto_box_seal('m', 'k')",
            "bad argument #2 to 'crypto_box_seal' (public key of 32 bytes expected, got 1 bytes)",
        ),
        (
            "crypto_box_seal_open('m', ('k'):rep(32), ('k'):rep(33))",
            "bad argument #3 to 'crypto_box_seal_open' (secret key of 32 bytes expected, got 33 bytes)",
        ),
        (
            "crypto_scalarmult_base('')",
            "bad argument #1 to 'crypto_scalarmult_base' (secret key of 32 bytes expected, got 0 bytes)",
        ),
        (
            "crypto_sign_detached('m', ('k'):rep(32))",
            "bad argument #2 to 'crypto_sign_detached' (secret key of 64 bytes expected, got 32 bytes)",
        ),
        (
            "crypto_sign_verify_detached('s', 'm', 'k')",
            "bad argument #3 to 'crypto_sign_verify_detached' (public key of 32 bytes expected, got 1 bytes)",
        ),
    ],
)
def test_wrong_arguments(call: str, problem: str) -> None:
    assert raises(f"\nlocal x = sodium.{call}") == f"script:2: {problem}"
