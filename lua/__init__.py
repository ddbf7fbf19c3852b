"""The Lua files that ship, as package data."""
