"""The readiness, watchdog and descriptor-store protocol, both ends."""
