"""The encoders that are supported: one small adapter a family, and what all others ask of it.

Begin in registry.py. Knows names and places alone: no torch, no transformers, so that both sides may read it.
"""
