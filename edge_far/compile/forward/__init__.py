"""From a transformers model to a canonical forward graph.

Begin in trace.py, fold.py, canonicalise.py. Knows nothing of gradients;
imports graph/ and far/ alone.
"""
