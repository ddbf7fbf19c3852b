"""The Lua host of a worker's script, and the libraries that the script sees."""
