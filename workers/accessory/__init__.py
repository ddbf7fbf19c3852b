"""The accessory: hands out IPC, PID and user namespaces by name, shared by all who ask for the same name."""
