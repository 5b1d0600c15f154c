"""The service over HTTP: the routes, and all that is between them and the pipeline."""
