"""The log of spawnd and its workers, and the kept output of services."""
