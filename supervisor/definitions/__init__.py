"""Definition files: keys, Lua, checks, and the resulting values."""
