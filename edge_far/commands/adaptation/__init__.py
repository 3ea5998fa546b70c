"""The commands around the daemon on a device: run it, feed it, ask it, go back.

Begin in daemon.py. Never imports torch, transformers or onnx.
"""
