"""Whether a candidate may be released: both models answer, a paired statistic decides, the user's command may veto.

Begin in verdict.py. Never imports training/; decide.py runs in a child and alone imports NumPy and ONNX Runtime.
"""
