"""Freeze And Reconfigure on torch modules: which nodes learn, and the model split into learners and the rest.

Begin in nodes.py, then prime.py, select.py, reconfigure.py. Knows no ONNX.
"""
