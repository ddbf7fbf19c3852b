"""Converts configurations of other supervisors to definition files; no process of spawnd's imports it."""
