"""Where blobs are kept: the port, and the backends behind it."""
