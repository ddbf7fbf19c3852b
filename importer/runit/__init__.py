"""Service directories of runit and daemontools as definitions."""
