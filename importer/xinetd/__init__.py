"""Services of xinetd as definitions."""
