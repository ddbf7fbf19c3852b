"""One call of a function of a definition file's module, in its own process."""
