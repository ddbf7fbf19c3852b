"""The knowledge of spawnd, written down so that the next one can continue."""
