"""Limits of the requests in progress: their number, their time and their memory."""
