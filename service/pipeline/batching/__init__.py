"""From single requests to runs of a model: shared batches, slots, and the health of inference."""
