"""The parts of `python -m benchmarks.soak`: what is posted, the callers, figures, report."""
