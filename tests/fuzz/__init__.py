"""Mutated clips against real caged workers, and mutated packets against the readers of bitstreams.

python -m tests.fuzz --minutes 600       both in turns; totals, corpus and finds are kept in fuzz-finds/
python -m tests.fuzz.readers             packets alone, guided by coverage, until interrupted
"""
