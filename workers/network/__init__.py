"""Interfaces, addresses and routes of a network namespace: what workers and scripts share."""
