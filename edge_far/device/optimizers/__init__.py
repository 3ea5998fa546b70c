"""AdamW, AdamW with 8-bit moments, Lion and SGD: NumPy, in place, in chunks that stay in cache.

Begin in base.py; registry.py names them. Imports nothing else of the project.
"""
