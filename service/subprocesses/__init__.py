"""Workloads that are loaded, timed and ended in separate processes."""
