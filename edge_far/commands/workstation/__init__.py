"""The commands of the workstation: export a bundle, measure, draw, make the demo's data.

Begin in export.py. These alone may need torch, transformers or onnx.
"""
