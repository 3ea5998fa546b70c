"""How much a graph holds at once, and steps that hold less by computing again or in 16 bits.

Begin in liveness.py. Imports graph/ alone.
"""
