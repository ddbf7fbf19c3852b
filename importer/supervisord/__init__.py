"""Programs of supervisord as definitions."""
