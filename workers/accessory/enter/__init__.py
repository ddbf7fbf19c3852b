"""`spawn-enter`: runs a command in namespaces of the accessory."""
