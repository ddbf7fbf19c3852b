"""The log of spawnd and of its workers, and what is kept of the output of services."""
