"""Definition files: keys, Lua, checks, and the values that come of them."""
