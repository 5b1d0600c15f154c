"""A comparison of the service with other model servers: servers, load generator, figures and report."""
