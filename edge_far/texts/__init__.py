"""Files of labelled texts -> examples -> token ids -> batches, the same on both sides.

Begin in data.py, then encode.py and batches.py. Never imports torch, transformers or onnx.
"""
