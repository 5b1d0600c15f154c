"""How the service scales: a simulation of replicas, checked against real ones, and plans based on it."""
