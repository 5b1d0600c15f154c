"""Workloads that are loaded and timed in separate processes."""
