"""Entries that no registry knows yet."""

from __future__ import annotations

from workers.accessory.entry import Account, Accounts, Entry
from workers.accessory.options import Quota
from workers.accessory.rights import SHARED


def account(uid: int = 0) -> Account:
    return Accounts(Quota(), 10_000).of(uid)


def entry(id: int = 1, name: str = "a", touched: float = 0.0, owner: Account | None = None) -> Entry:
    return Entry(id, SHARED, owner or account(), name, touched, touched)
