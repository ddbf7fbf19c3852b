"""The Lua host of a worker's script, and the libraries for the script."""
