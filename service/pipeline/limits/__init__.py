"""Limits on the number, time and memory of the requests in progress."""
