"""Times and weighs training here, against PyTorch and onnxruntime-training, in processes of their own.

Begin in pipeline.py; what is timed is in work/. Never imports commands/ or the daemon.
"""
