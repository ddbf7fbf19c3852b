"""spawn-supervisor: one supervisor for one Linux host, in the inetd style."""

__version__ = "0.1.0"
