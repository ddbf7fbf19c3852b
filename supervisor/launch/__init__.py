"""Starts of programs without a fork of spawnd: a plan, and the program `launch` that executes it."""

import os

PATH = os.path.join(os.path.dirname(__file__), "launch")
ACCEPTOR = os.path.join(os.path.dirname(__file__), "acceptor")
