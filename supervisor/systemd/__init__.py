"""Messages between spawnd and the systemd that started it, and descriptors that systemd keeps."""
