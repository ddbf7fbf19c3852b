"""The state that survives an exec or a loss of spawnd: written down, and taken over by the next spawnd."""
