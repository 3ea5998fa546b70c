"""The run time on the device: a bundle, NumPy and ONNX Runtime.

Begin in run/trainer.py; what it stands on lies below: planning/, engine/, optimizers/, board/. Never imports torch,
transformers or onnx.
"""
