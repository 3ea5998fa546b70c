"""One room of the smart home a module: its labels and the sentences for them.

Begin in light.py. Imports the grammar alone.
"""
