"""spawn-supervisor: one supervisor for one Linux host, in the inetd style."""

from supervisor.deferred import defer

__version__ = "0.1.0"

# `dataclasses` imports it only for docstrings of classes without one; with its own imports it takes 1.3 MB of
# each process
defer("inspect")
