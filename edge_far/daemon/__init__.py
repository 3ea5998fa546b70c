"""Periodic adaptation on a device: spool, store, conditions, training, gate, releases.

Begin in service.py (one look), then cycle.py (one night). The parent process never imports NumPy or ONNX Runtime.
"""
