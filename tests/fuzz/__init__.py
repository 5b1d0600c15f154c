"""Mutated clips against real caged workers, and mutated packets against the readers of bitstreams.

python -m tests.fuzz --minutes 60        clips; what is found is saved in fuzz-finds/
python -m tests.fuzz.readers             packets, guided by coverage, until interrupted
"""
