"""Links and frames: bytes, buffers, sockets. Knows no model and no daemon."""
