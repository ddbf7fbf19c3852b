"""What spawnd knows, written down so that the next one can go on with it."""
