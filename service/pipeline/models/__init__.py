"""The models at run time: versions are loaded, serve, and are unloaded after their last requests."""
