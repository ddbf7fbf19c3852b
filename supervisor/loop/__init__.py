"""The event loop of spawnd and of its small workers."""
