"""The control interface: Varlink over the stream socket `control`."""
