"""Decoding in processes of their own, which hostile bytes may end and cannot leave."""
