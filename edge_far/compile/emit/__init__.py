"""Writes what a bundle holds: graphs, weights, figures of memory and work, the probe, the ort/ artifacts.

Begin in portable.py. Imports graph passes, never the pipeline.
"""
