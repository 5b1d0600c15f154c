"""Hostile, broken and unusual files, made on the fly, and what the service has to answer to each.

python -m tests.hostile --passes 10      the whole corpus against a service of its own, with a report
"""
