"""The protocol for readiness, watchdog and descriptor store: both ends."""
