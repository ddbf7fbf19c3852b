"""`sodium`: functions of libsodium for scripts, through PyNaCl."""

from __future__ import annotations

import binascii
import os

from nacl import bindings
from nacl.exceptions import BadSignatureError, CryptoError

from workers.lua.libraries import Context
from workers.lua.state import Functions, bad_argument

_KEY = 32  # bytes of both keys of a box, of a scalar and of a public key for signatures
_SIGNING_KEY = 64
_SIGNATURE = 64


class Sodium:
    name = "sodium"
    waiting: Functions = {}

    def __init__(self, _context: Context | None = None) -> None:
        functions = (
            bin2hex,
            hex2bin,
            randombytes,
            crypto_box_keypair,
            crypto_box_seal,
            crypto_box_seal_open,
            crypto_scalarmult_base,
            crypto_sign_keypair,
            crypto_sign_detached,
            crypto_sign_verify_detached,
        )
        self.functions: Functions = {each.__name__: each for each in functions}

    def close(self) -> None:
        """Do nothing: there is no state."""


def bin2hex(data: bytes) -> bytes:
    return binascii.hexlify(data)


def hex2bin(text: bytes) -> bytes | None:
    try:
        return binascii.unhexlify(text)
    except ValueError:
        return None


def randombytes(size: int) -> bytes:
    return os.urandom(size)


def crypto_box_keypair() -> tuple[bytes, bytes]:
    public, secret = bindings.crypto_box_keypair()
    return public, secret


def crypto_box_seal(message: bytes, public: bytes) -> bytes:
    _check("crypto_box_seal", 2, "public", public, _KEY)
    sealed: bytes = bindings.crypto_box_seal(message, public)
    return sealed


def crypto_box_seal_open(sealed: bytes, public: bytes, secret: bytes) -> bytes | None:
    _check("crypto_box_seal_open", 2, "public", public, _KEY)
    _check("crypto_box_seal_open", 3, "secret", secret, _KEY)
    try:
        message: bytes = bindings.crypto_box_seal_open(sealed, public, secret)
    except (CryptoError, TypeError):  # TypeError: too short
        return None
    return message


def crypto_scalarmult_base(secret: bytes) -> bytes:
    _check("crypto_scalarmult_base", 1, "secret", secret, _KEY)
    public: bytes = bindings.crypto_scalarmult_base(secret)
    return public


def crypto_sign_keypair() -> tuple[bytes, bytes]:
    public, secret = bindings.crypto_sign_keypair()
    return public, secret


def crypto_sign_detached(message: bytes, secret: bytes) -> bytes:
    _check("crypto_sign_detached", 2, "secret", secret, _SIGNING_KEY)
    signed: bytes = bindings.crypto_sign(message, secret)
    return signed[:_SIGNATURE]


def crypto_sign_verify_detached(signature: bytes, message: bytes, public: bytes) -> bool:
    _check("crypto_sign_verify_detached", 3, "public", public, _KEY)
    if len(signature) != _SIGNATURE:
        return False
    try:
        bindings.crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def _check(name: str, number: int, what: str, key: bytes, size: int) -> None:
    if len(key) != size:
        raise bad_argument(name, number, f"{what} key of {size} bytes expected, got {len(key)} bytes")
