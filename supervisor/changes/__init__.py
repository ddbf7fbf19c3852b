"""The definitions of a running supervisor: their evaluation, and the plan and the change to new ones."""
