"""From single requests to runs of a model: shared batches, turns, and whether the runs succeed."""
