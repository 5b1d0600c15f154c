"""Accuracy of models taught from few clips: see `benchmarks.teach.__main__`."""
