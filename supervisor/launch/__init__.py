"""Starts of programs without a fork of spawnd: a plan, and the program `launch` that executes it."""
