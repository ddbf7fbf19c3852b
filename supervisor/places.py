"""Where this installation has its configuration."""

from __future__ import annotations

SYSCONFDIR = "/etc"  # `make install SYSCONFDIR=…` writes this line
