"""Loss and gradients of a micro-batch, by ONNX Runtime.

Begin in backend.py (what an engine must offer), then session.py. Knows no plan and no optimiser.
"""
