"""Work that callers do not wait for: jobs in a folder, with their videos and results."""
