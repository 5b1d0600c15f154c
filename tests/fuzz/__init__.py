"""Fuzzes sandboxed workers with mutated videos, and the bitstream readers with mutated packets.

python -m tests.fuzz --minutes 600       both in turns; totals, corpus and findings are stored in fuzz-finds/
python -m tests.fuzz.readers             packets only, guided by coverage, until interrupted
"""
