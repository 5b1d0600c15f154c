"""Side-by-side measurements of inference: workloads in separate processes, run in alternating repeats."""
