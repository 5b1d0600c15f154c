"""The HTTP interface: the routes, and the code between them and the pipeline."""
