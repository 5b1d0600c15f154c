"""Things that compute, measured in processes of their own: each loaded by name, asked, timed and ended."""
