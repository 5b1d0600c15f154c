"""Teaching of models in a running service: examples in a folder, and trainings."""
