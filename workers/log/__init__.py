"""The log worker: keeps the output of services, and passes it on."""
