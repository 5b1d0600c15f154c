"""A long run under mixed load: requests, traffic, observation, figures and report."""
