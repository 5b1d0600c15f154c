"""Work that callers do not wait for: jobs in a folder or in Redis, with their videos and results."""
