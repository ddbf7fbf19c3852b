"""The event loop of spawnd and of its workers."""
