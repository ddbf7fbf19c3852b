"""One call of a function of a definition file's module, in a process of its own."""
