"""The parts of `python -m benchmarks.serving_race`: servers, load, figures, report."""
