"""Decisions about services: pure functions of values, no clock, no system call."""
