"""Lines of inetd.conf as definitions."""
