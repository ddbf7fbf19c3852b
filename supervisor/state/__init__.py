"""The state of spawnd, written down so that the next spawnd can continue."""
