"""What is frozen in 8 bits: products, weights, tables, and what is kept for the backward pass.

Begin in quantize.py; the order is in graph_passes.py. Imports graph/ alone.
"""
