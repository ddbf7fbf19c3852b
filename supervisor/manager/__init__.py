"""The services as they run: the one place where decisions become system calls."""
