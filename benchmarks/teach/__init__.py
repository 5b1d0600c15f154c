"""How well few clips teach: see `benchmarks.teach.__main__`."""
