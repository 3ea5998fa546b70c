"""Will it run here, and what should be put right first: one finding a topic, each with a line to type.

Begin in examination.py. Reads files below one root directory; imports no NumPy and no ONNX Runtime, for they may be
what is broken.
"""
