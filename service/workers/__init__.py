"""Decoding in sandboxed processes."""
