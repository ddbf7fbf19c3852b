"""Interfaces, addresses and routes of a network namespace, for workers and scripts."""
