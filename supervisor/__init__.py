"""spawn-supervisor: one supervisor for one Linux host, in the inetd style."""

from supervisor.deferred import defer

__version__ = "0.1.0"

# `dataclasses` imports it for the docstrings of classes that have none; it is 1.3 MB of each process with what it needs
defer("inspect")
