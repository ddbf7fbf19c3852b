"""The accessory: hands out IPC, PID and user namespaces by name, shared by all clients that ask for the same name."""
