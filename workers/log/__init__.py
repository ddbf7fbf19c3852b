"""The log worker: keeps and passes on the output of services."""
