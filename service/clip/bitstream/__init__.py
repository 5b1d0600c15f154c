"""Readers that find from a packet's bytes which frames it decodes to: one module per codec family."""
