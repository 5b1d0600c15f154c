"""Comparative measurements of inference: workloads in separate processes, run in alternating repeats."""
