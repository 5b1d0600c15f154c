"""From clip to labels, and all that is in the way when many want it at once; no HTTP."""
