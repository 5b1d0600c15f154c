"""The pipeline from clip to labels, and the limits on concurrent requests; independent of HTTP."""
