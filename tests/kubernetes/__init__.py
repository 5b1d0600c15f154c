"""Manifests of docker/kubernetes: building them, and schemas of the custom resources that they use."""
