"""Checks that the settings and the installation fit the machine."""
