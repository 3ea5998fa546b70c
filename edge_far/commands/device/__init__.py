"""The commands that plan, train and use a bundle; they run on both sides.

Begin in train.py. Never imports torch, transformers or onnx.
"""
