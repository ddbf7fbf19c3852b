"""Definitions of a running supervisor: evaluated, planned for, changed to."""
