"""Units of systemd as definitions."""
