"""`spawnctl`, the operator's tool: one file a verb."""
