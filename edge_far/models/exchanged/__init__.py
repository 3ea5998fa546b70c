"""Modules that stand in for transformers' own, where heads and nodes or the compiler need another form of the same.

Begin in exchange.py. They compute what the original computes for a text alone; what is released has the original's
parameters.
"""
