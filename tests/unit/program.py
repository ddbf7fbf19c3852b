"""The program `launch`, opened once for all tests of a process."""

from __future__ import annotations

from supervisor.launch.program import Program

PROGRAM = Program()
