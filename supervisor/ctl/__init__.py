"""The operator's tool `spawnctl`, with one module for each verb."""
