"""Read from the bytes of packets what they decode to, without decoding: one module per codec family."""
