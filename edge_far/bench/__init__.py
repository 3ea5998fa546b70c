"""Measures training: time, peak memory and bytes moved, against PyTorch and onnxruntime-training.

cases says which rows a table has, run starts a fresh process (child) for each, summary turns what they return into rows
and ratios. Only bundles, models, traffic and torch_steps need the workstation's packages.
"""
